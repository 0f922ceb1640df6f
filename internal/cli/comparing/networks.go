package comparing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
)

const (
	sending = 300 * time.Millisecond
	asking  = 200 * time.Millisecond
	// answering is how long a server may take until it is there.
	answering = 20 * time.Second
)

// networks measures what gets from the host into a workload by a published port.
func (c *comparison) networks(ctx context.Context) {
	c.inTurn(ctx, "network", insideRounds, 30*time.Second, func(w *way) {
		rate, trip, err := w.traffic(ctx)
		w.sample("network.published", rate, err)
		w.sample("network.roundtrip", trip, err)
	})
}

func (w *way) traffic(ctx context.Context) (rate, trip float64, err error) {
	if m := w.measure("network.published"); m.Reason == errNoNetwork.Error() {
		return 0, 0, errNoNetwork
	}
	name := newName("serve")
	if _, err := w.detach(ctx, name, []string{meterPath, "serve", "0.0.0.0:" + servedPort}, true); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, w.remove(context.WithoutCancel(ctx), name)) }()
	addr, err := w.address(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	if err := answers(ctx, addr); err != nil {
		return 0, 0, err
	}
	r, err := meter.Call(addr, sending, asking)
	if err != nil {
		return 0, 0, err
	}
	return r.Rate, r.P50, nil
}

// answers waits until somebody behind an address answers: a published port may
// accept before the program that it leads to does.
func answers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			conn.Close()
			if _, err = meter.Call(addr, time.Millisecond, time.Millisecond); err == nil {
				return nil
			}
		}
		if wait(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("nobody answers at the published port within %v: %w", answering, err)
		}
	}
}
