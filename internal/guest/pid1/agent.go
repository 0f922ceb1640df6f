package pid1

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// A Server serves one session of the protocol over conn, and returns when the
// session is over and its workloads are gone.
type Server func(ctx context.Context, conn io.ReadWriteCloser) error

// pause is the least time between two sessions: a host that sends nonsense must
// not keep the guest busy.
const pause = 100 * time.Millisecond

// lastWords is how long the server has to end its session when the machine is
// asked to power off.
const lastWords = 10 * time.Second

// Run is the life of the agent: it serves the host, again when the host comes
// back, until m.PowerOff or a signal asks for the end. Then it returns nil.
func Run(m *Machine, serve Server) error {
	if err := spare(); err != nil {
		return err
	}
	device, err := findPort(PortName)
	if err != nil {
		return err
	}
	p, err := openPort(device)
	if err != nil {
		return fmt.Errorf("open the port to the host: %w", err)
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- sessions(ctx, p, serve) }()
	select {
	case err := <-failed:
		return err
	case <-asked:
	case <-m.off:
	}
	stop()
	select {
	case <-failed: // the error is that ctx has ended
	case <-time.After(lastWords):
	}
	if m.switched.Load() {
		m.leave()
	}
	return nil
}

// sessions serves one session after the other.
func sessions(ctx context.Context, p *port, serve Server) error {
	for ctx.Err() == nil {
		if err := p.awaitHost(); err != nil {
			return fmt.Errorf("wait for the host: %w", err)
		}
		conn, err := p.session()
		if err != nil {
			return fmt.Errorf("begin a session: %w", err)
		}
		began := time.Now()
		unhook := context.AfterFunc(ctx, func() { conn.Close() }) // wakes who reads
		if err := serve(ctx, conn); err != nil && ctx.Err() == nil {
			Log("session: %v", err)
		}
		unhook()
		if err := conn.Close(); err != nil {
			return fmt.Errorf("end a session: %w", err)
		}
		time.Sleep(pause - time.Since(began)) // not a wait for something: a limit of the rate
	}
	return ctx.Err()
}

// spare saves the agent from being killed when memory runs out: without it the
// whole machine ends. Its children inherit this, so the server gives each
// workload a score of its own.
func spare() error {
	return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
}
