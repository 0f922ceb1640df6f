package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// How long a workload waits before its next life: Docker's figures. The pause
// doubles with each life, and begins anew after one that lasted.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Minute
	lasting      = 10 * time.Second
)

// notStarted is the exit code that is recorded of a life that could not be
// started: the one with which run reports such a thing.
const notStarted = 125

// wants reports whether a policy asks for another life after exit, when there
// were restarts so far.
func wants(p workload.Restart, exit workload.Exit, restarts int) bool {
	switch p.Policy {
	case workload.RestartAlways, workload.RestartUnlessStopped:
		return true
	case workload.RestartOnFailure:
		return exit.Code != 0 && (p.Max == 0 || restarts < p.Max)
	}
	return false
}

// pauseAfter is how long to wait after a life that lasted for ran, when the
// pause before it was last, 0 for none.
func pauseAfter(last, ran time.Duration) time.Duration {
	if last == 0 || ran >= lasting {
		return firstPause
	}
	return min(2*last, longestPause)
}

// again decides what follows the end of a life.
func (s *supervisor) again(exit workload.Exit, deleteErr error) (pause time.Duration, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reviving && deleteErr == nil && s.halted.Err() == nil {
		s.state.Stopped = false
		return 0, true
	}
	if s.killer != 0 && (exit.Signal == int(s.killer) || exit.Code == 128+int(s.killer)) {
		s.state.Stopped = true // a command ended it, by whatever signal
	}
	// What could not be deleted is in the way of another.
	if deleteErr != nil || s.state.Stopped || s.halted.Err() != nil || !wants(s.spec.Restart, exit, s.state.Restarts) {
		return 0, false
	}
	s.state.Pause = pauseAfter(s.state.Pause, exit.At.Sub(s.state.Started))
	return s.state.Pause, true
}

// maxEnds is how many ends of lives are kept, maxReason how much of what is
// said about each.
const maxEnds, maxReason = 5, 256

// restarting records that a life has ended and another will follow.
func (s *supervisor) restarting(exit workload.Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.To(workload.Restarting)
	s.state.PID, s.state.Finished, s.state.Exit = 0, exit.At, &exit
	if err := s.log.Err(); err != nil {
		s.state.LogError = err.Error()
	}
	if s.reviving { // by a command, as if it was started anew
		s.reviving, s.state.Restarts, s.state.Ends, s.state.Pause = false, 0, nil, 0
	} else {
		s.remember(exit)
	}
	s.ends++
	s.last = exit
	s.announce()
	if err := s.write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	state.Did("restart: recorded")
}

// remember adds the end of a life to those that are kept. s.mu is held.
func (s *supervisor) remember(exit workload.Exit) {
	s.state.Restarts++
	exit.Error = exit.Error[:min(len(exit.Error), maxReason)]
	ends := append([]workload.Exit(nil), s.state.Ends...) // snapshots share the old ones
	ends = append(ends, exit)
	s.state.Ends = ends[max(0, len(ends)-maxEnds):]
}

// revive ends the life that runs, gently until timeout has passed, and begins
// another, whatever the policy. It returns when that runs. The workload is the
// supervisor's all the time, so that one that is removed at its end is not removed.
func (s *supervisor) revive(timeout time.Duration, sig syscall.Signal) error {
	sig, err := s.orStopSignal(sig)
	if err != nil {
		return err
	}
	s.mu.Lock()
	l := s.life
	// Nothing to end, as another command has done that, or will find what begins.
	comes := l == nil && s.halted.Err() == nil && (s.reviving || s.state.Status == workload.Restarting || s.state.Exit == nil)
	s.reviving = s.reviving || l != nil
	s.mu.Unlock()
	switch {
	case comes:
	case l == nil:
		return workload.ErrNotRunning
	default:
		if k, ok := l.inst.(boundary.Keeper); ok {
			k.Keep()
		}
		if err := s.quit(l, timeout, sig, l.ended); err != nil {
			return err
		}
		s.happened("stop")
	}
	for {
		s.mu.Lock()
		now, changed := s.life, s.changed
		s.mu.Unlock()
		if now != nil && now != l {
			return nil
		}
		select {
		case <-changed:
		case <-s.ended:
			if last := s.lastExit(); last.Code == notStarted && last.Error != "" {
				return errors.New(last.Error)
			}
			return fmt.Errorf("%w: it was stopped meanwhile", workload.ErrNotRunning)
		}
	}
}

// next waits and begins another life. It returns nil when there is to be none.
// A life that cannot be started counts as one that failed.
func (s *supervisor) next(pause time.Duration) *life {
	for {
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-s.halted.Done():
			t.Stop()
			return nil
		}
		s.idle.Reset(settled)
		l, err := s.relive()
		if err == nil {
			return l
		}
		if s.halted.Err() != nil {
			return nil
		}
		exit := workload.Exit{Code: notStarted, At: time.Now(), Error: "start: " + err.Error()}
		s.mu.Lock()
		again := wants(s.spec.Restart, exit, s.state.Restarts)
		s.state.Pause = pauseAfter(s.state.Pause, 0)
		pause = s.state.Pause
		s.last = exit
		s.mu.Unlock()
		if !again {
			return nil
		}
		s.failed(exit)
		s.died(exit)
	}
}

// relive begins another life. The beginning, and not the life, ends when the
// supervisor is told to halt.
func (s *supervisor) relive() (*life, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(s.halted, cancel)
	defer stop()
	s.net.wiring.Lock()
	l, err := s.create(ctx)
	if err == nil {
		if err = s.launch(ctx, l); err != nil {
			err = errors.Join(err, s.discard(ctx, l))
		}
	}
	s.net.wiring.Unlock()
	if err != nil {
		return nil, err
	}
	state.Did("restart: started")
	s.attend(l)
	if s.halted.Err() != nil {
		// Whoever asked for the end saw no life to end.
		l.inst.Signal(context.Background(), killSignal)
	}
	return l, nil
}

// failed records that a life could not be started, and that another will be
// tried.
func (s *supervisor) failed(exit workload.Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Exit, s.state.Finished = &exit, exit.At
	s.remember(exit)
	s.ends++
	s.announce()
	if err := s.write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
