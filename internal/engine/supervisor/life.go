package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// life is one run of the workload's first process.
type life struct {
	inst    boundary.Instance
	io      *streams
	checker *checker // nil without health checks
	files   transfers
	// started is when the first process was let run; runs lasts until its end, nil
	// without a trace.
	started time.Duration
	runs    *trace.Open

	// ended is closed when exit is known and nothing is left of this life.
	ended chan struct{}
	exit  workload.Exit
}

// over tells everybody who waits for this life how it ended.
func (l *life) over(exit workload.Exit) {
	l.exit = exit
	l.io.end(exit)
	close(l.ended)
}

// create prepares a life up to the first instruction of its first process. On
// error nothing is left of it.
func (s *supervisor) create(ctx context.Context) (*life, error) {
	attaching, cancel := context.WithCancel(ctx) // ends the program that makes networks
	defer cancel()
	l := &life{ended: make(chan struct{})}
	spec := s.asked()
	p := s.start.Prepared()
	var err error
	if l.io, err = newStreams(spec.Process.Terminal, spec.KeepStdin); err != nil {
		return nil, err
	}
	l.io.open = !s.start.Input
	p.Stdio = l.io.Theirs()
	p.Notice = func(line string) { l.io.notice(s.log, line) }
	if err = s.join(attaching, &spec, &p); err == nil {
		creating, created := trace.Begin(ctx, "boundary created")
		l.inst, err = s.boundary.Create(creating, spec, p)
		created.End()
		if herr := s.hand(ctx); herr != nil && err == nil {
			err = errors.Join(herr, l.inst.Delete(context.WithoutCancel(ctx)))
		}
	}
	if err != nil {
		s.net.abandon(cancel)
		l.io.Close()
		return nil, err
	}
	state.Did("start: boundary created")
	if err := s.enter(ctx, &spec, l.inst); err != nil {
		s.net.abandon(cancel)
		return nil, errors.Join(err, s.discard(ctx, l))
	}
	return l, nil
}

// discard removes a life that never ran.
func (s *supervisor) discard(ctx context.Context, l *life) error {
	err := l.inst.Delete(context.WithoutCancel(ctx))
	l.io.Close()
	return err
}

// launch lets the first process run, and makes the life the one that commands
// reach.
func (s *supervisor) launch(ctx context.Context, l *life) error {
	// The record comes first: a workload that runs must never be taken for one
	// that does not.
	recording := trace.Step(ctx, "recorded as running")
	before, err := s.recordRunning(l)
	recording.End()
	if err == nil {
		state.Did("start: running recorded")
		starting, started := trace.Begin(ctx, "first process started")
		err = l.inst.Start(starting)
		started.End()
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		before.Stopped = before.Stopped || s.state.Stopped // a command may have come meanwhile
		s.state = before
		return errors.Join(err, s.write())
	}
	state.Did("start: started")
	l.started = trace.Now()
	l.io.Begun(l.inst.Terminal())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life, s.killer = l, 0
	s.announce()
	return nil
}

// attend does what goes on beside a life that has been launched.
func (s *supervisor) attend(l *life) {
	s.networksHappened("connect", s.snapshot().NICs)
	s.happened("start")
	// After the reply, of which they are no part, and before there is output.
	l.io.first = s.since(l.started, "runs until its first output")
	l.runs = s.since(l.started, "runs until its exit")
	l.io.pump(s.log)
	s.check(l)
	s.idle.Reset(settled) // the start may have taken longer than that
	if !s.spec.AutoRemove {
		// A workload that runs is there after a power cut; nobody waits for that.
		go s.layout.Sync(s.spec.ID)
	}
}

// since begins a phase of the workload, in the past.
func (s *supervisor) since(at time.Duration, name string) *trace.Open {
	_, o := trace.BeginAt(s.context(), name, at)
	return o.Of("workload")
}

// recordRunning writes down that a life runs, and returns the state before.
func (s *supervisor) recordRunning(l *life) (before state.State, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.state
	if s.state.Status != workload.Restarting { // the first since a command has started it
		s.state.Restarts, s.state.Ends, s.state.Pause, s.state.Stopped = 0, nil, 0, false
	}
	if err := s.state.To(workload.Running); err != nil {
		return before, err
	}
	s.state.PID, s.state.Supervisor = l.inst.PID(), os.Getpid()
	s.state.Started, s.state.Finished, s.state.Exit = time.Now(), time.Time{}, nil
	s.state.LogError = ""
	if err := s.write(); err != nil {
		return before, err
	}
	// The end will have to be recorded, too, however full the disk is by then.
	return before, s.layout.Reserve(s.spec.ID, &s.state)
}

// end waits for the end of a life and deletes it. The exit that it returns is
// recorded.
func (s *supervisor) end(l *life) (exit workload.Exit, deleteErr error) {
	ctx := s.context()
	exit, err := l.inst.Wait(ctx)
	l.runs.End()
	if err != nil {
		exit = workload.Exit{Code: 255, Error: err.Error()}
	}
	if exit.At.IsZero() {
		exit.At = time.Now()
	}
	recording := trace.Step(ctx, "exit recorded")
	s.mu.Lock()
	s.life = nil
	s.state.Exit = &exit
	err = s.write()
	s.mu.Unlock()
	recording.End()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	state.Did("end: exit recorded")
	s.died(exit)
	s.settleNetworks()

	s.beginLeave()
	l.checker.stop()
	// Deleting may close a terminal, so its last output is read first.
	draining := trace.Step(ctx, "last output read")
	l.io.drain()
	draining.End()
	l.files.end()
	deleting, deleted := trace.Begin(ctx, "boundary removed")
	deleteErr = l.inst.Delete(deleting)
	deleted.End()
	if deleteErr != nil {
		exit.Error = "cleaning up: " + deleteErr.Error()
	}
	l.checker.wait()
	state.Did("end: boundary deleted")
	return exit, deleteErr
}
