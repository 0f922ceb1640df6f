package supervisor

import (
	"fmt"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// write replaces the state on disk. s.mu is held.
func (s *supervisor) write() error {
	return s.layout.WriteState(s.spec.ID, &s.state, !s.spec.AutoRemove)
}

// announce wakes whoever waits for a change. s.mu is held.
func (s *supervisor) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// snapshot returns a copy of the state.
func (s *supervisor) snapshot() *state.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.state
	return &c
}

// asked returns the specification that is in force.
func (s *supervisor) asked() workload.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spec
}

// lastExit is how the last life ended.
func (s *supervisor) lastExit() workload.Exit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// record writes the end of the workload down and gives up the lock.
func (s *supervisor) record(exit workload.Exit, deleteErr error) {
	defer s.lock.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	var err error
	if s.spec.AutoRemove && deleteErr == nil {
		if err := s.layout.DropVolumes(s.spec.ID); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		if err = s.layout.Remove(s.spec.ID, s.spec.Name, s.state.IDBase); err == nil {
			s.layout.Happened(&s.spec, "destroy")
			return
		}
		fmt.Fprintln(os.Stderr, err)
	}
	if err := s.log.Err(); err != nil {
		s.state.LogError = err.Error()
	}
	s.state.Exit, s.state.Finished = &exit, exit.At
	s.state.PID, s.state.Supervisor, s.state.Pause = 0, 0, 0
	if deleteErr == nil {
		// Otherwise it stays as it was, and the next command tries again.
		s.state.To(workload.Exited)
	}
	if err := s.write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	state.Did("end: recorded")
	if deleteErr == nil {
		os.RemoveAll(s.layout.RunDir(s.spec.ID))
		state.Did("end: run-time directory deleted")
	}
}
