package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

const killSignal = syscall.SIGKILL

// running returns the life that runs, or workload.ErrNotRunning.
func (s *supervisor) running() (*life, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == nil {
		if s.state.Status == workload.Restarting {
			return nil, fmt.Errorf("%w: it waits to be restarted", workload.ErrNotRunning)
		}
		return nil, workload.ErrNotRunning
	}
	return s.life, nil
}

// command sends a signal that a command asked for. SIGKILL and the workload's
// stop signal are the wish that it ends, so it is not restarted; so is any other
// signal that it dies of.
func (s *supervisor) command(sig syscall.Signal) error {
	s.mu.Lock()
	l := s.life
	waits := l == nil && s.state.Status == workload.Restarting
	ends := sig == killSignal
	if stop, err := s.stopSignal(); err == nil && sig == stop {
		ends = true
	}
	if ends && (l != nil || waits) {
		s.state.Stopped = true
	}
	s.killer = sig
	s.mu.Unlock()
	if waits && ends {
		s.halt()
		return nil
	}
	err := s.signal(sig)
	if err == nil {
		s.happened("kill", "signal", strconv.Itoa(int(sig)))
	}
	return err
}

// signal sends sig to the first process. A paused one gets SIGKILL at once, as
// cgroup v1 delivers nothing to the frozen.
func (s *supervisor) signal(sig syscall.Signal) error {
	l, err := s.running()
	if err != nil {
		return err
	}
	if err := l.inst.Signal(context.Background(), sig); err != nil {
		return err
	}
	if sig == killSignal {
		return s.thaw()
	}
	return nil
}

func (s *supervisor) thaw() error {
	if s.snapshot().Status != workload.Paused {
		return nil
	}
	return s.pause(workload.Running)
}

// pause makes the workload Paused or Running.
func (s *supervisor) pause(to workload.Status) error {
	l, err := s.running()
	if err != nil {
		return err
	}
	p, ok := l.inst.(boundary.Pauser)
	if !ok {
		return fmt.Errorf("%w: boundary %q cannot pause", workload.ErrUnsupported, s.spec.Boundary)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Exit != nil {
		return workload.ErrNotRunning
	}
	next := s.state
	if err := next.To(to); err != nil {
		return err
	}
	ctx := context.Background()
	f := p.Pause
	if to == workload.Running {
		f = p.Resume
	}
	if err := f(ctx); err != nil {
		return err
	}
	s.state = next
	s.announce()
	if err := s.write(); err != nil {
		return err
	}
	action := "pause"
	if to == workload.Running {
		action = "unpause"
	}
	s.layout.Happened(&s.spec, action)
	return nil
}

// stopSignal is the one that asks the workload to end; s.mu is held.
func (s *supervisor) stopSignal() (syscall.Signal, error) {
	if s.spec.StopSignal == "" {
		return syscall.SIGTERM, nil
	}
	return workload.ParseSignal(s.spec.StopSignal)
}

func (s *supervisor) stopTimeout() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spec.StopTimeout
}

// stop ends the workload because a command wants it, and keeps that in mind.
func (s *supervisor) stop(timeout time.Duration, sig syscall.Signal) error {
	s.mu.Lock()
	s.state.Stopped = true
	s.mu.Unlock()
	err := s.shutdown(timeout, sig)
	if err == nil {
		s.happened("stop")
	}
	return err
}

// shutdown ends the workload by sig, or by its own stop signal if that is 0,
// gently until timeout has passed; a negative one never does. There is no other life. Between two lives it ends at once.
func (s *supervisor) shutdown(timeout time.Duration, sig syscall.Signal) error {
	sig, err := s.orStopSignal(sig)
	if err != nil {
		return err
	}
	s.halt()
	return s.quit(timeout, sig, s.ended)
}

// orStopSignal is sig, or the workload's own stop signal if that is 0.
func (s *supervisor) orStopSignal(sig syscall.Signal) (syscall.Signal, error) {
	if sig != 0 {
		return sig, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopSignal()
}

// quit sends the life that runs sig, and SIGKILL when timeout has passed and ended
// is not closed. It returns when it is.
func (s *supervisor) quit(timeout time.Duration, sig syscall.Signal, ended <-chan struct{}) error {
	if err := s.signal(sig); err == nil {
		s.thaw()
		var over <-chan time.Time // nil blocks for ever
		if timeout >= 0 {
			timer := time.NewTimer(timeout)
			defer timer.Stop()
			over = timer.C
		}
		select {
		case <-ended:
			return nil
		case <-over:
		}
	}
	if err := s.signal(killSignal); err != nil && !errors.Is(err, workload.ErrNotRunning) && s.snapshot().Exit == nil {
		return err
	}
	<-ended
	return nil
}
