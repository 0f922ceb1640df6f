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
func (s *supervisor) signal(sig syscall.Signal) error { return s.signalLife(nil, sig) }

// signalLife is signal for one life alone, nil for the one that runs.
func (s *supervisor) signalLife(of *life, sig syscall.Signal) error {
	l, err := s.running()
	if err == nil && of != nil && of != l {
		err = workload.ErrNotRunning
	}
	if err != nil {
		return err
	}
	if sig == killSignal {
		s.callOffPause()
	}
	if err := l.inst.Signal(context.Background(), sig); err != nil {
		return err
	}
	if sig == killSignal {
		// What has ended of it meanwhile needs no more.
		if err := s.thaw(); !errors.Is(err, workload.ErrNotRunning) {
			return err
		}
	}
	return nil
}

// pauseLimit is how long a boundary may take to pause a workload, or to continue
// it: longer than any of them needs to find out that a guest is silent. What another
// runtime has begun it ends in a time of its own.
const pauseLimit = 15 * time.Second

// callOffPause ends a pause under way, so that nobody who wants to end the workload
// waits for it.
func (s *supervisor) callOffPause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.callOff != nil {
		s.callOff()
	}
}

// thaw continues the workload if it is paused, or about to be.
func (s *supervisor) thaw() error {
	s.callOffPause()
	s.pausing.Lock()
	defer s.pausing.Unlock()
	if s.snapshot().Status != workload.Paused {
		return nil
	}
	return s.turn(workload.Running)
}

// paused tells whether the workload is paused, when a change of that under way is
// over, and returns what is closed at the next change of anything.
func (s *supervisor) paused() (bool, <-chan struct{}) {
	s.pausing.Lock()
	defer s.pausing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Status == workload.Paused, s.changed
}

// pause makes the workload Paused or Running.
func (s *supervisor) pause(to workload.Status) error {
	s.pausing.Lock()
	defer s.pausing.Unlock()
	return s.turn(to)
}

// turn is pause with s.pausing held. s.mu is not held while the boundary is at
// work: a process in a system call that only a fatal signal ends does not stop for
// a freezer, and then the workload must be one that can still be killed.
func (s *supervisor) turn(to workload.Status) error {
	l, err := s.running()
	if err != nil {
		return err
	}
	p, ok := l.inst.(boundary.Pauser)
	if !ok {
		return fmt.Errorf("%w: boundary %q cannot pause", workload.ErrUnsupported, s.spec.Boundary)
	}
	ctx, cancel := context.WithTimeout(context.Background(), pauseLimit)
	defer cancel()
	s.mu.Lock()
	next := s.state
	if err = next.To(to); s.state.Exit != nil {
		err = workload.ErrNotRunning
	}
	if err == nil && to == workload.Paused {
		s.callOff = cancel
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if to == workload.Running {
		err = p.Resume(ctx)
	} else if err = p.Pause(ctx); err != nil {
		err = undoPause(ctx, p, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.callOff = nil
	if s.life != l || s.state.Exit != nil {
		return workload.ErrNotRunning // meanwhile
	}
	if err != nil {
		return err
	}
	if err := s.state.To(to); err != nil {
		return err
	}
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

// undoPause continues what has stopped of a workload that could not be paused, and
// returns why that was.
func undoPause(ctx context.Context, p boundary.Pauser, err error) error {
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseLimit)
	defer cancel()
	p.Resume(undo) //nolint:errcheck // some refuse where nothing has stopped
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%w: it is being ended", workload.ErrNotRunning)
	}
	return err
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
	return s.quit(nil, timeout, sig, s.ended)
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

// quit sends one life, nil for the one that runs, sig, and SIGKILL when timeout has
// passed and ended is not closed. It returns when it is.
func (s *supervisor) quit(l *life, timeout time.Duration, sig syscall.Signal, ended <-chan struct{}) error {
	s.callOffPause()
	if err := s.signalLife(l, sig); err == nil {
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
	if err := s.signalLife(l, killSignal); err != nil && !errors.Is(err, workload.ErrNotRunning) && s.snapshot().Exit == nil {
		return err
	}
	<-ended
	return nil
}
