// Package supervisor owns one workload from its start until it is not to run
// any more: its log, its socket, and one life after the other, each with a
// boundary's instance, standard streams and an exit. It is the body of the
// bulkhead-supervisor program, which outlives the command that starts it.
//
//	request(start)
//	  │    ┌───────────────────── the pause is over ─────────────────────┐
//	  ▼    ▼                                                             │
//	Create, Start ──> running ── first process ends ──> Delete ──┬── restarting
//	  │ error            │ beside it: output to log and clients, │ the     │ stop
//	  ▼                  │ exec, pause, health checks, updates   │ policy  │
//	Reply, the end       └── stop, kill ──> the process ends     │ says no │
//	                                                             ▼         ▼
//	                              recorded ──> lock freed ──> clients get Exit ──> the end
//
// create, launch, attend and end are the steps of one life, in life.go; what a
// life needs beside its instance, such as networks, is put between them. The
// policy and its pauses are in restart.go. In a later life an error of the first
// steps counts as a life that failed.
//
// The end of a life is told of in this order: its exit is recorded, its output
// read to the end, its instance deleted, what follows recorded, and then its
// clients get Exit. Whoever hears of an end finds everything gone, and a
// supervisor that is killed between two steps leaves what the next command
// recognizes: a run-time directory whose lock is free. No daemon restarts such a
// workload: it becomes exited, whatever its policy.
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
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/selfexec"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
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
	layout   state.Layout
	start    *wire.Start
	boundary boundary.Boundary
	lock     *os.File
	log      *logfile.Writer
	net      networking
	// created is called once, when the first Create is over, or will not be; or nil.
	created func(context.Context) error
	// booted are the files that the workload's machine boots from, see use.
	booted []*os.File
	// trace records the start and the end of the first life, nil if nobody asked.
	trace *trace.Recorder

	mu    sync.Mutex
	spec  workload.Spec // as it is in force
	state state.State
	// life is the one that runs, nil between two lives and after the last.
	life *life
	// last is how the last life ended, ends how many lives another followed.
	last workload.Exit
	ends int
	// killer is the signal that a command sent last to the life that runs.
	killer syscall.Signal
	// reviving is set when another life is to follow the one that runs, whatever
	// the policy.
	reviving bool
	// held is what serves files alone, see hold; nil otherwise.
	held *holding
	// ending is set when nothing but the end is written any more.
	ending bool
	// changed is closed and replaced when any of the above has changed.
	changed chan struct{}

	changing sync.Mutex // orders updates
	// pausing is held while the workload is paused or continued. callOff, which mu
	// guards, ends a pause under way; nil without one.
	pausing sync.Mutex
	callOff context.CancelFunc

	// halted ends when there is to be no other life.
	halted context.Context
	halt   context.CancelFunc
	// ended is closed when nothing is left of the workload.
	ended chan struct{}
	// idle shrinks the process when it fires, settled after the last client.
	idle *time.Timer
	// sessions counts connections that are being served.
	sessions sync.WaitGroup
}

// Main serves one workload behind one of boundaries and returns the process's
// exit status.
func Main(boundaries ...boundary.Boundary) int {
	trace.Main()
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
	c := newClient(conn)
	var h *holder
	if req.Op == wire.OpWarm && req.Warm != nil && req.Version == wire.Version {
		lock.Close() // of no workload
		var err error
		h, lock, conn, err = wait(context.Background(), boundaries, req.Warm, c, terminate)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if h == nil {
			return 0
		}
		boundaries, r, c = h.boundaries(boundaries), wire.NewReader(conn), newClient(conn)
		req = wire.Request{}
		if err := r.Message(wire.TypeRequest, &req); err != nil {
			h.discard(context.Background()) //nolint:errcheck // the next command tries again
			return 1
		}
	}
	if req.Op != wire.OpStart || req.Start == nil || req.Version != wire.Version {
		fmt.Fprintf(os.Stderr, "request %q, version %d: want start, version %d\n", req.Op, req.Version, wire.Version)
		if h != nil {
			h.discard(context.Background()) //nolint:errcheck // the next command tries again
		}
		return 1
	}
	s := newSupervisor(req.Start, lock)
	s.use()
	if req.Trace {
		s.trace = trace.New("supervisor")
		if h == nil {
			trace.Past(s.context(), "program loaded", "supervisor", trace.Born(), trace.Loaded())
			trace.Past(s.context(), "request awaited", "supervisor", trace.Loaded(), trace.Now())
		}
	}
	if req.Start.Hold {
		return s.hold(boundaries, r, c, terminate)
	}
	if h != nil {
		h.become(s.spec.ID)
		s.created = h.over
	}
	first, l, err := s.begin(boundaries, &req, c)
	if err != nil {
		err = errors.Join(err, s.hand(s.context()))
		// The command still holds the lock, and cleans up when it reads this.
		c.reply(wire.Reply{Error: wire.NewError(err), Phases: s.trace.Take()})
		c.finish(time.Second)
		return 1
	}
	s.sessions.Go(func() { s.serveStart(first, r, c, &req) })
	s.sessions.Go(func() { s.accept(l) })
	go func() {
		<-terminate // the machine goes down
		s.shutdown(s.stopTimeout(), 0)
	}()
	s.live(first, l)
	s.idle.Stop()
	s.sessions.Wait()
	return 0
}

func newSupervisor(start *wire.Start, lock *os.File) *supervisor {
	s := &supervisor{
		layout: state.Layout{Root: start.Root, Run: start.Run},
		start:  start,
		spec:   start.Spec,
		state:  start.State,
		lock:   lock,

		changed: make(chan struct{}),
		ended:   make(chan struct{}),
		idle:    time.AfterFunc(settled, shrink),
	}
	s.halted, s.halt = context.WithCancel(context.Background())
	return s
}

// use marks the files that the workload's machine boots from, which are then there
// for its next life, too, whatever becomes of the kernel: see package kernel. What
// cannot be marked is left to Create to tell.
func (s *supervisor) use() {
	m := s.state.Machine
	if m == nil {
		return
	}
	for _, name := range []string{m.Kernel, m.Initramfs} {
		if f, err := os.Open(name); err == nil {
			_ = sys.MarkUsed(f)
			s.booted = append(s.booted, f)
		}
	}
}

// begin starts the first life. On success the reply is on its way.
func (s *supervisor) begin(boundaries []boundary.Boundary, req *wire.Request, c *client) (*life, *wire.Listener, error) {
	if err := s.choose(boundaries); err != nil {
		return nil, nil, err
	}
	var err error
	if s.log, err = s.openLog(); err != nil {
		return nil, nil, err
	}
	s.forgetHealth()
	ctx := s.context()
	l, err := s.create(ctx)
	if err != nil {
		return nil, nil, err
	}
	listener, err := wire.Listen(s.layout.RunDir(s.spec.ID))
	if err == nil {
		if err = s.launch(ctx, l); err != nil {
			listener.Close()
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, s.discard(ctx, l))
	}
	// The pumps begin after the reply is queued, so it comes first.
	c.reply(wire.Reply{
		PID: l.inst.PID(), State: s.snapshot(), Warnings: s.net.warnings(),
		Terminal: l.io.Terminal() != nil, Stdin: l.io.hasInput(), Phases: s.trace.Take(),
	})
	if req.Streams {
		c.foreground, c.trace = true, s.trace
		l.io.add(c)
	}
	s.attend(l)
	return l, listener, nil
}

// hand calls created, once.
func (s *supervisor) hand(ctx context.Context) error {
	f := s.created
	if s.created = nil; f == nil {
		return nil
	}
	return f(context.WithoutCancel(ctx))
}

// context is the context of what is traced.
func (s *supervisor) context() context.Context {
	return trace.With(context.Background(), s.trace)
}

// choose settles the boundary, and that the workload may be made behind it.
func (s *supervisor) choose(boundaries []boundary.Boundary) error {
	for _, b := range boundaries {
		if b.Name() == s.spec.Boundary {
			s.boundary = b
		}
	}
	if s.boundary == nil {
		return fmt.Errorf("%w: the supervisor has no boundary %q", workload.ErrUnsupported, s.spec.Boundary)
	}
	return s.checkSealed()
}

// openLog opens the log that was asked for; none is nil.
func (s *supervisor) openLog() (*logfile.Writer, error) {
	l := s.spec.Log
	if l.Driver == workload.LogNone {
		return nil, nil
	}
	return logfile.Open(s.layout.Log(s.spec.ID), logfile.Limits{Size: l.MaxSize, Files: l.MaxFiles, Lose: s.logLost})
}

// logLost tells at once, in what inspect shows, that output is missing from the
// log; how much, the end tells.
func (s *supervisor) logLost(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Status == workload.Exited || s.ending {
		return
	}
	s.state.LogError = "output is missing from the log: " + err.Error()
	if err := s.write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
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

// live leads the workload through all of its lives and takes it down.
func (s *supervisor) live(l *life, listener *wire.Listener) {
	for {
		exit, deleteErr := s.end(l)
		delay, again := s.again(exit, deleteErr)
		if !again {
			s.finish(l, exit, deleteErr, listener)
			return
		}
		s.restarting(exit)
		l.over(exit)
		s.trace = nil
		if l = s.next(delay); l == nil {
			s.finish(nil, s.lastExit(), nil, listener)
			return
		}
	}
}

// finish records the end of the workload and tells everybody. last is the life
// whose clients still wait for it, nil if they do not.
func (s *supervisor) finish(last *life, exit workload.Exit, deleteErr error, listener *wire.Listener) {
	s.halt()
	if deleteErr == nil {
		leaving, left := trace.Begin(s.context(), "networks left")
		s.net.wiring.Lock() // a change between two lives may be under way
		deleteErr = s.leave(leaving)
		s.net.wiring.Unlock()
		left.End()
		if deleteErr != nil {
			exit.Error = "cleaning up: " + deleteErr.Error()
		}
	}
	for _, f := range s.booted {
		f.Close()
	}
	recording := trace.Step(s.context(), "end recorded, or workload removed")
	s.log.Close()
	s.record(exit, deleteErr)
	recording.End()
	listener.Close()
	s.mu.Lock()
	s.last = exit
	s.announce()
	s.mu.Unlock()
	if last != nil {
		last.over(exit)
	}
	close(s.ended)
	if !s.spec.AutoRemove {
		s.layout.Sync(s.spec.ID)
	}
}
