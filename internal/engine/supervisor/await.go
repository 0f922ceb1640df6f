package supervisor

import (
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// serveWait tells a client when what it waits for has come true.
func (s *supervisor) serveWait(r *wire.Reader, c *client, req *wire.Request) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r.Next() // a client that waits says nothing more: this is its end
	}()
	if exit, ok := s.await(req.Until, gone); ok {
		c.exit(exit)
	}
}

// await returns when until has come true, with the last exit, or with false
// when gone is closed first.
func (s *supervisor) await(until wire.Until, gone <-chan struct{}) (exit workload.Exit, ok bool) {
	if until == wire.UntilStopped {
		select {
		case <-s.ended:
			return s.lastExit(), true
		case <-gone:
			return exit, false
		}
	}
	s.mu.Lock()
	before := s.ends
	for s.ends == before {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-s.ended:
			return s.lastExit(), true
		case <-changed:
		case <-gone:
			return exit, false
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	return s.last, true
}
