package supervisor

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
)

// holding is an instance that was made for its files and never runs.
type holding struct {
	inst  boundary.Instance
	files transfers
}

// hold makes the instance of a workload that does not run, and serves requests
// about its files until the command that asked for it closes its connection, or
// is gone. No log is opened, no network made, and nothing recorded: afterwards
// the workload is what it was.
func (s *supervisor) hold(boundaries []boundary.Boundary, r *wire.Reader, c *client, terminate <-chan os.Signal) int {
	ctx := context.Background()
	listener, err := s.beginHolding(ctx, boundaries)
	if err != nil {
		// The command still holds the lock, and cleans up when it reads this.
		c.reply(wire.Reply{Error: wire.NewError(err)})
		c.finish(time.Second)
		return 1
	}
	c.reply(wire.Reply{State: s.snapshot()})
	s.sessions.Go(func() { s.accept(listener) })
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r.Next() // nothing is said any more: this is its end
	}()
	select {
	case <-gone:
	case <-terminate: // the machine goes down
	}
	listener.Close()
	s.held.files.end()
	err = s.held.inst.Delete(ctx)
	if err == nil {
		err = os.RemoveAll(s.layout.RunDir(s.spec.ID))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err) // the next command tries again
	}
	state.Did("hold: over")
	s.lock.Close()
	c.finish(time.Second)
	s.idle.Stop()
	s.sessions.Wait()
	return 0
}

func (s *supervisor) beginHolding(ctx context.Context, boundaries []boundary.Boundary) (*wire.Listener, error) {
	if err := s.choose(boundaries); err != nil {
		return nil, err
	}
	inst, err := s.boundary.Create(ctx, s.spec, s.start.Prepared())
	if err != nil {
		return nil, err
	}
	s.held = &holding{inst: inst}
	state.Did("hold: boundary created")
	return wire.Listen(s.layout.RunDir(s.spec.ID)) // on error the command removes the instance
}
