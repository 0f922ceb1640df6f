// Package supervisor owns one run of one workload: its boundary's instance, its
// standard streams, its log and its exit. It is the body of the
// bulkhead-supervisor program, which outlives the command that starts it.
//
//	                 ┌─ Create ─ Start ─┐
//	request(start) ──┤                  ├── running ── first process ends ──┐
//	                 └──── error ───────┘                                  │
//	   process ends <── clients get Exit <── lock freed <── records <── Delete
//
// The steps of the end are ordered so that whoever hears of it finds everything
// gone, and so that a supervisor that is killed between two of them leaves what
// the next command recognizes: a run-time directory whose lock is free.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/logfile"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/selfexec"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The descriptors that a supervisor inherits.
const (
	LockFD = 3 // the workload's lock
	ConnFD = 4 // the connection that carries the request to start
)

// linger is how long a client that takes none of its output may hold up the
// supervisor's end. The workload's end it does not hold up.
const linger = time.Hour

type supervisor struct {
	layout state.Layout
	spec   workload.Spec
	lock   *os.File
	inst   boundary.Instance
	io     *stdio
	log    *logfile.Writer

	mu    sync.Mutex
	state state.State
	exit  workload.Exit

	// ended is closed when exit is known and nothing is left of the workload.
	ended chan struct{}
	// idle shrinks the process when it fires, settled after the last client.
	idle *time.Timer
	// sessions counts connections that are being served.
	sessions sync.WaitGroup
}

// Main serves one workload behind one of boundaries and returns the process's
// exit status.
func Main(boundaries ...boundary.Boundary) int {
	for _, fd := range []int{LockFD, ConnFD} {
		syscall.CloseOnExec(fd)
	}
	lock := os.NewFile(LockFD, "lock")
	// What is not in blocking mode, NewFile lets the runtime poll.
	if err := syscall.SetNonblock(ConnFD, true); err != nil {
		fmt.Fprintln(os.Stderr, "this program is started by bulkhead, not by hand")
		return 1
	}
	conn := os.NewFile(ConnFD, "socket")
	// Caught and dropped, not ignored: what is ignored stays so across execve,
	// and a shell in the workload could not trap it (signal(7), sh(1)).
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE)
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)

	r := wire.NewReader(conn)
	var req wire.Request
	if err := r.Message(wire.TypeRequest, &req); err != nil {
		return 1 // the command is gone, and the next one cleans up
	}
	if req.Op != wire.OpStart || req.Start == nil || req.Version != wire.Version {
		fmt.Fprintf(os.Stderr, "request %q, version %d: want start, version %d\n", req.Op, req.Version, wire.Version)
		return 1
	}
	s := &supervisor{
		layout: state.Layout{Root: req.Start.Root, Run: req.Start.Run},
		spec:   req.Start.Spec,
		state:  req.Start.State,
		lock:   lock,
		ended:  make(chan struct{}),
		idle:   time.AfterFunc(settled, shrink),
	}
	c := newClient(conn)
	l, err := s.begin(boundaries, &req, c)
	if err != nil {
		// The command still holds the lock, and cleans up when it reads this.
		c.reply(wire.Reply{Error: wire.NewError(err)})
		c.finish(time.Second)
		return 1
	}
	s.sessions.Go(func() { s.serveStart(r, c, &req) })
	s.sessions.Go(func() { s.accept(l) })
	go func() {
		<-terminate // the machine goes down
		s.stop(s.spec.StopTimeout)
	}()
	s.end(l)
	s.idle.Stop()
	s.sessions.Wait()
	return 0
}

// begin starts the workload. On success the reply is on its way.
func (s *supervisor) begin(boundaries []boundary.Boundary, req *wire.Request, c *client) (*wire.Listener, error) {
	var b boundary.Boundary
	for _, x := range boundaries {
		if x.Name() == s.spec.Boundary {
			b = x
		}
	}
	if b == nil {
		return nil, fmt.Errorf("%w: the supervisor has no boundary %q", workload.ErrUnsupported, s.spec.Boundary)
	}
	if err := s.checkSealed(); err != nil {
		return nil, err
	}
	ctx := context.Background()
	p := req.Start.Prepared()
	var err error
	if s.log, err = logfile.Open(s.layout.Log(s.spec.ID)); err != nil {
		return nil, err
	}
	if s.io, err = newStdio(s.spec.Process.Terminal, s.spec.KeepStdin); err != nil {
		return nil, err
	}
	p.Stdio = s.io.theirs
	p.Notice = func(line string) { s.io.notice(s.log, line) }
	if s.inst, err = b.Create(ctx, s.spec, p); err != nil {
		return nil, err
	}
	state.Did("start: boundary created")
	l, err := s.launch(ctx, p.Dir)
	if err != nil {
		return nil, errors.Join(err, s.inst.Delete(ctx))
	}
	// The pumps begin after the reply is queued, so it comes first.
	c.reply(wire.Reply{
		PID: s.inst.PID(), State: s.snapshot(),
		Terminal: s.io.terminal != nil, Stdin: s.io.hasInput(),
	})
	if req.Streams {
		c.foreground = true
		s.io.add(c)
	}
	s.io.pump(s.log)
	return l, nil
}

// checkSealed makes sure that a workload without a user namespace of its own
// cannot reach our program for writing through a process that we fork
// (CVE-2019-5736). The engine starts us that way.
func (s *supervisor) checkSealed() error {
	if !s.spec.Namespaces.HostUser {
		return nil
	}
	selfexec.Name()
	ok, err := selfexec.Sealed()
	if err == nil && !ok {
		err = errors.New("the supervisor's program is writable for a workload in the host's user namespace")
	}
	return err
}

func (s *supervisor) launch(ctx context.Context, dir string) (*wire.Listener, error) {
	l, err := wire.Listen(dir)
	if err != nil {
		return nil, err
	}
	// The record comes first: a workload that runs must never be taken for one
	// that does not.
	before := s.state
	if err = s.state.To(workload.Running); err == nil {
		s.state.PID, s.state.Supervisor = s.inst.PID(), os.Getpid()
		s.state.Started, s.state.Finished, s.state.Exit = time.Now(), time.Time{}, nil
		s.state.LogError = ""
		err = s.layout.WriteState(s.spec.ID, &s.state, false)
	}
	if err == nil {
		// The end will have to be recorded, too, however full the disk is by then.
		err = s.layout.Reserve(s.spec.ID, &s.state)
	}
	if err == nil {
		state.Did("start: running recorded")
		err = s.inst.Start(ctx)
	}
	if err != nil {
		l.Close()
		return nil, errors.Join(err, s.layout.WriteState(s.spec.ID, &before, false))
	}
	state.Did("start: started")
	s.io.begun(s.inst.Terminal())
	return l, nil
}

// end waits for the first process and takes everything down.
func (s *supervisor) end(l *wire.Listener) {
	ctx := context.Background()
	exit, err := s.inst.Wait(ctx)
	if err != nil {
		exit = workload.Exit{Code: 255, Error: err.Error()}
	}
	if exit.At.IsZero() {
		exit.At = time.Now()
	}
	s.mu.Lock()
	s.state.Exit = &exit
	err = s.layout.WriteState(s.spec.ID, &s.state, false)
	s.mu.Unlock()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	state.Did("end: exit recorded")

	// Deleting may close a terminal, so its last output is read first.
	s.io.drain()
	deleteErr := s.inst.Delete(ctx)
	if deleteErr != nil {
		exit.Error = "cleaning up: " + deleteErr.Error()
	}
	state.Did("end: boundary deleted")
	s.log.Close()
	s.record(exit, deleteErr)
	l.Close()

	s.mu.Lock()
	s.exit = exit
	s.mu.Unlock()
	s.io.end(exit)
	close(s.ended)
	if !s.spec.AutoRemove {
		s.layout.Sync(s.spec.ID)
	}
}

// record writes the end down and gives up the lock.
func (s *supervisor) record(exit workload.Exit, deleteErr error) {
	defer s.lock.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.spec.AutoRemove && deleteErr == nil {
		if err = s.layout.Remove(s.spec.ID, s.spec.Name, s.state.IDBase); err == nil {
			return
		}
		fmt.Fprintln(os.Stderr, err)
	}
	if err := s.log.Err(); err != nil {
		s.state.LogError = err.Error()
	}
	s.state.Exit, s.state.Finished = &exit, exit.At
	s.state.PID, s.state.Supervisor = 0, 0
	if deleteErr == nil {
		// Otherwise it stays as it was, and the next command tries again.
		s.state.To(workload.Exited)
	}
	if err := s.layout.WriteState(s.spec.ID, &s.state, false); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	state.Did("end: recorded")
	if deleteErr == nil {
		os.RemoveAll(s.layout.RunDir(s.spec.ID))
		state.Did("end: run-time directory deleted")
	}
}

// snapshot returns a copy of the state.
func (s *supervisor) snapshot() *state.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.state
	return &c
}

// signal sends sig to the first process. A paused one gets SIGKILL at once, as
// cgroup v1 delivers nothing to the frozen.
func (s *supervisor) signal(sig syscall.Signal) error {
	if err := s.inst.Signal(context.Background(), sig); err != nil {
		return err
	}
	if sig == syscall.SIGKILL {
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
	p, ok := s.inst.(boundary.Pauser)
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
	return s.layout.WriteState(s.spec.ID, &s.state, false)
}

// stop ends the workload, gently until timeout has passed; a negative one never
// does.
func (s *supervisor) stop(timeout time.Duration) error {
	sig := syscall.SIGTERM
	if s.spec.StopSignal != "" {
		var err error
		if sig, err = workload.ParseSignal(s.spec.StopSignal); err != nil {
			return err
		}
	}
	if err := s.signal(sig); err == nil {
		s.thaw()
		var over <-chan time.Time // nil blocks for ever
		if timeout >= 0 {
			timer := time.NewTimer(timeout)
			defer timer.Stop()
			over = timer.C
		}
		select {
		case <-s.ended:
			return nil
		case <-over:
		}
	}
	if err := s.signal(syscall.SIGKILL); err != nil && s.snapshot().Exit == nil {
		return err
	}
	<-s.ended
	return nil
}
