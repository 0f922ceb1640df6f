package supervisor

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// serveHost lets the supervisor of another workload reach the machine that it
// runs in. The connection is the stream's, or the disk's, as long as both sides
// want.
func (s *supervisor) serveHost(conn *os.File, c *client, req *wire.Request) {
	l, err := s.running()
	if err != nil {
		c.reply(wire.Reply{Error: wire.NewError(err)})
		return
	}
	h, ok := l.inst.(boundary.Host)
	if !ok || !s.spec.VM.Machine {
		c.reply(wire.Reply{Error: wire.NewError(fmt.Errorf("%w: it is not the machine of a tenant", workload.ErrUnsupported))})
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch req.Op {
	case wire.OpInsert:
		serial, release, err := h.Insert(ctx, req.Image)
		lend(conn, c, wire.Reply{Serial: serial}, release, err)
	case wire.OpPlug:
		c.reply(wire.Reply{}) // the descriptor may come
		device, release, err := plug(ctx, conn, h, req.Stream)
		lend(conn, c, wire.Reply{Device: device}, release, err)
	default:
		dial(ctx, conn, c, h)
	}
}

// lend replies, and keeps what was lent until the other side is gone.
func lend(conn *os.File, c *client, r wire.Reply, release func(), err error) {
	if err != nil {
		c.reply(wire.Reply{Error: wire.NewError(err)})
		return
	}
	c.reply(r)
	conn.Read(make([]byte, 1)) // nothing is said any more: this is its end
	release()
}

// plug takes the descriptor that was announced to a network device.
func plug(ctx context.Context, conn *os.File, h boundary.Host, stream bool) (device string, release func(), err error) {
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	f, err := wire.ReceiveFile(conn)
	if err != nil {
		return "", nil, fmt.Errorf("take a network device's other side: %w", err)
	}
	defer f.Close()
	conn.SetReadDeadline(time.Time{})
	return h.Plug(ctx, f, stream)
}

// dial makes the connection a stream to the guest's agent.
func dial(ctx context.Context, conn *os.File, c *client, h boundary.Host) {
	stream, err := h.Dial(ctx)
	if err != nil {
		c.reply(wire.Reply{Error: wire.NewError(err)})
		return
	}
	// By hand and not through c, which would still be sending it beside the
	// stream.
	b, err := wire.AppendJSON(nil, wire.TypeReply, wire.Reply{})
	if err == nil {
		_, err = conn.Write(b)
	}
	if err == nil {
		protocol.Relay(conn, stream)
	}
	stream.Close()
}
