package launch

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
)

// Running is a program whose host steps have all been performed.
type Running struct {
	p      *Program
	m      *memory
	pid    int
	exited chan struct{}
	ws     unix.WaitStatus
	usage  unix.Rusage
	err    error
}

// Value returns what a step saved in slot.
func (r *Running) Value(s Slot) int { return int(r.m.values[s]) }

// Options say how Run treats the program's last child.
type Options struct {
	// Child is the slot with the process ID of the child that outlives the
	// program.
	Child Slot
	// Detached leaves the child to be reaped by somebody else. Otherwise the
	// host's thread stays and waits for it, which also keeps alive the thread
	// that a parent-death signal (prctl(2), PR_SET_PDEATHSIG) refers to.
	Detached bool
	// Observe, when set, is told after each of the host's steps how long it took.
	Observe func(step string, took time.Duration)
}

// Run performs a built program. On error all its children are dead and reaped
// and its descriptors closed. A program runs once.
//
// The host's steps run on a thread of their own that ends with the child: they
// may change that thread's namespaces, root and working directory.
func (p *Program) Run(ctx context.Context, o Options) (*Running, error) {
	if !p.built || p.ran {
		return nil, errors.New("launch: a program is built once and runs once")
	}
	p.ran = true
	r := &Running{p: p, m: &memory{}, exited: make(chan struct{})}
	done := make(chan error, 1)
	onFreshThread(func() {
		x := &execution{p: p, m: r.m, observe: o.Observe, began: bootTicks()}
		stop := context.AfterFunc(ctx, x.abort)
		err := x.run(ctx)
		stop()
		if err == nil && !x.seal() {
			err = ErrChildDied
		}
		if err != nil {
			x.cleanUp()
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			done <- err
			return
		}
		r.pid = int(r.m.values[o.Child])
		done <- nil
		if !o.Detached {
			r.wait()
		}
	})
	if err := <-done; err != nil {
		return nil, err
	}
	return r, nil
}

// onFreshThread runs f on a thread that is not the process's main thread and
// that ends with f. The main thread cannot end before the process does, and
// /proc/self would show its namespaces as the process's.
func onFreshThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f() // returning locked ends the thread
			return
		}
		// Sit on the main thread until another goroutine has another one.
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			f()
		}()
		<-started
		runtime.UnlockOSThread()
	}()
}

// Pid is the process ID of the child, in the caller's pid namespace.
func (r *Running) Pid() int { return r.pid }

func (r *Running) wait() {
	defer close(r.exited)
	for {
		_, err := unix.Wait4(r.pid, &r.ws, 0, &r.usage)
		if err == nil {
			return
		}
		if err != unix.EINTR {
			r.err = err
			return
		}
	}
}

// Exited is closed when the child has ended and is reaped. It is never closed
// for a detached child.
func (r *Running) Exited() <-chan struct{} { return r.exited }

// Wait waits for the child and returns how it ended.
func (r *Running) Wait() (unix.WaitStatus, error) {
	<-r.exited
	return r.ws, r.err
}

// execution is the state of one Run.
type execution struct {
	p       *Program
	m       *memory
	observe func(string, time.Duration)

	early    map[Message]uint64 // messages received
	mu       sync.Mutex         // guards what abort reads
	children []int              // forked and not about to be reaped
	aborted  bool
	sealed   bool // no child may be killed any more: their IDs may become others'
	awaiting bool // the host reads the status pipe

	began uint64 // when, in clock ticks since boot
}

// run performs the host's steps in order.
func (x *execution) run(ctx context.Context) error {
	var phase string
	var going *trace.Open
	defer func() { going.End() }()
	for _, s := range x.p.Steps {
		if s.Actor != Host {
			continue
		}
		if s.phase != phase && s.phase != "" { // the closes that Build adds have none
			going.End()
			phase, going = s.phase, trace.Step(ctx, s.phase)
		}
		var err error
		var began time.Time
		if x.observe != nil {
			began = time.Now()
		}
		switch s.kind {
		case fork:
			err = x.fork(s)
		case await:
			err = x.await(s)
		case given:
			x.m.values[s.Save] = s.value
		case goFunc:
			if e := s.run(func(slot Slot) int { return int(x.m.values[slot]) }); e != nil {
				err = &StepError{Program: x.p.Name, Why: s.Why, Step: x.p.text(s), Err: e}
			}
		default:
			err = x.call(s)
		}
		if x.observe != nil {
			x.observe(x.p.text(s), time.Since(began))
		}
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ESRCH) {
			err = x.whyGone(err)
		}
		if err != nil {
			return err
		}
	}
	runtime.KeepAlive(x.p)
	return nil
}

func (x *execution) call(s *Step) error {
	args, keep := x.p.hostArgs(s, x.m)
	if s.Call == Wait4 {
		// Before it is reaped, not after: abort must not kill whoever has the ID
		// next. A child that is waited for is about to end.
		x.forget(int(args[0]))
	}
	var r uintptr
	var e syscall.Errno
	for {
		r, _, e = syscall.Syscall6(uintptr(s.Call), args[0], args[1], args[2], args[3], args[4], args[5])
		if e == syscall.EINTR && s.Call == Close {
			e = 0 // it is closed (close(2), "Dealing with error returns"); again would close another's
		}
		if e != syscall.EINTR {
			break
		}
	}
	runtime.KeepAlive(keep)
	if e != 0 {
		for _, t := range s.Tolerate {
			if e == t {
				return nil
			}
		}
		return x.failed(s, e)
	}
	if s.want >= 0 && uintptr(s.want) != r {
		return x.failed(s, 0)
	}
	if s.Save != 0 {
		x.m.values[s.Save] = r
	}
	if s.Call == Close {
		x.m.values[s.Args[0].slot] = closedFD
	}
	return nil
}

// closedFD marks the slot of a descriptor that has been closed.
const closedFD = ^uintptr(0)

func (x *execution) failed(s *Step, e syscall.Errno) error {
	return &StepError{Program: x.p.Name, Step: x.p.text(s), Why: s.Why, Actor: s.Actor, Call: s.Call, Errno: e}
}

func (x *execution) fork(s *Step) error {
	list := x.p.compile(s.child, x.m)
	args, _ := x.p.hostArgs(s, x.m)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.aborted {
		return context.Canceled
	}
	pid, e := forkAndWalk(uintptr(s.Call), &args, list, x.m, x.m.values[x.p.statusWrite])
	runtime.KeepAlive(list)
	if e != 0 {
		return x.failed(s, e)
	}
	x.m.values[s.Save] = pid
	x.children = append(x.children, int(pid))
	return nil
}

// await reads records from the status pipe until the step's message comes.
func (x *execution) await(s *Step) error {
	value, err := x.receive(s.message)
	var failed *StepError
	if errors.As(err, &failed) && s.reap && failed.Actor != Stage {
		// The child failed faster than its parent told of it.
		if pid, err := x.receive(s.message); err == nil {
			x.adopt(int(pid))
		}
	}
	if err != nil {
		if failed == nil {
			err = &StepError{Program: x.p.Name, Step: x.p.text(s), Why: s.Why, Err: err}
		}
		return err
	}
	if s.Save != 0 {
		x.m.values[s.Save] = uintptr(value)
	}
	if s.reap {
		x.adopt(int(value))
	}
	return nil
}

// receive returns the value of a message. Messages that come earlier wait for
// their turn; a failure is an error at once.
func (x *execution) receive(m Message) (uint64, error) {
	for {
		if v, ok := x.early[m]; ok {
			return v, nil
		}
		value, mark, err := x.record()
		switch {
		case err != nil:
			return 0, err
		case mark>>32 == 0:
			return 0, x.p.childFailed(value, mark)
		}
		if x.early == nil {
			x.early = map[Message]uint64{}
		}
		x.early[Message(mark>>32)] = value
	}
}

// whyGone replaces the error of a step about a child that is gone by the failure
// that the child reported.
func (x *execution) whyGone(err error) error {
	const nobodyTells Message = -1
	var failed *StepError
	if _, e := x.receive(nobodyTells); errors.As(e, &failed) {
		return failed
	}
	return err
}

// adopt counts pid among the children to kill and reap when the program fails.
func (x *execution) adopt(pid int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.children = append(x.children, pid)
}

// childFailed makes the error of the step that a failure record names.
func (p *Program) childFailed(index, errno uint64) error {
	if index >= uint64(len(p.Steps)) {
		return errors.New("launch: a child sent a malformed record")
	}
	s := p.Steps[index]
	e := syscall.Errno(errno)
	if errno == badResult {
		e = 0
	}
	return &StepError{Program: p.Name, Step: p.text(s), What: p.what(s), Why: s.Why, Actor: s.Actor, Call: s.Call, Errno: e}
}

// Outcome reads the status pipe to its end after the program has run: nil when
// the last child has executed its program, the failed step otherwise. explain
// turns the record of a failure into an error; the program's own Failure does,
// or what another process kept of it.
func Outcome(fd int, explain func(index, errno uint64) error) error {
	value, errno, err := readRecord(fd)
	switch {
	case errors.Is(err, ErrChildDied): // end of file
		return nil
	case err != nil:
		return err
	}
	return explain(value, errno)
}

// Failure makes the error of the step that a failure record names.
func (p *Program) Failure(index, errno uint64) error { return p.childFailed(index, errno) }

// ErrChildDied says that a child ended without reporting a failure: it was
// killed, by the kernel for want of memory or by a seccomp filter, say.
var ErrChildDied = errors.New("the process was killed while it was being set up")

func readRecord(fd int) (value, errno uint64, err error) {
	var b [recordSize]byte
	for {
		n, err := unix.Read(fd, b[:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, 0, err
		case n == 0:
			return 0, 0, ErrChildDied
		case n != recordSize:
			return 0, 0, errors.New("short record from a child")
		}
		return binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:]), nil
	}
}
