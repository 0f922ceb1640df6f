package launch

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Trial is one system call of a Recording.
type Trial struct {
	Call Call
	Args [6]uintptr
	// I386 makes the call as 32-bit programs do, by int $0x80, with the first three
	// arguments; Call is a number of that architecture then. On amd64 only, and
	// only if HasI386.
	I386 bool
	// Must ends the child unless the call fails with Errno; 0 stands for success.
	Must  bool
	Errno syscall.Errno
}

// Result is what came of a Trial. Without Ended the child died in it or before.
type Result struct {
	Ended bool
	Value uintptr
	Errno syscall.Errno
}

// Recording is a child that makes system calls one after the other, whatever
// comes of each, and ends. It serves to find out what calls do in a process that
// may be killed for them, or that nothing but its end takes the effects back from.
// Results lie in memory that both sides share, so that those before the child's
// death are known.
type Recording struct {
	trials []Trial
	pid    int

	mu      sync.Mutex
	mem     []byte // resultSize for each, until the child was waited for
	results []Result
}

// Record starts a child that makes the calls. flags are added to those of clone(2):
// CLONE_FILES lets this process use descriptors that the child makes. What the
// arguments point to is the caller's to keep alive until Wait.
func Record(flags uintptr, trials []Trial) (*Recording, error) {
	mem, err := unix.Mmap(-1, 0, max(1, len(trials))*int(resultSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	r := &Recording{trials: trials, mem: mem}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, errno := forkAndRecord(flags|uintptr(unix.SIGCHLD), r.trials, r.mem)
	if errno != 0 {
		_ = unix.Munmap(mem) // fails only for what is not mapped
		return nil, os.NewSyscallError("clone", errno)
	}
	r.pid = int(pid)
	return r, nil
}

// Result returns what came of a trial so far.
func (r *Recording) Result(n int) Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return r.results[n]
	}
	return readResult(r.mem, n)
}

// Kill ends the child. Call it before Wait returns, or the process ID may be
// another's.
func (r *Recording) Kill() error { return unix.Kill(r.pid, unix.SIGKILL) }

// PID is the child's. It is another's, or nobody's, once Wait has returned.
func (r *Recording) PID() int { return r.pid }

// Wait waits for the child's end and returns what came of its calls.
func (r *Recording) Wait() ([]Result, unix.WaitStatus, error) { return r.WaitTraced(nil) }

// WaitTraced is Wait for whoever traces the child, on the thread that does:
// stopped is called at each stop, and lets the child go on. If it fails, the child
// is killed.
func (r *Recording) WaitTraced(stopped func(ws unix.WaitStatus) error) ([]Result, unix.WaitStatus, error) {
	var ws unix.WaitStatus
	var failed error
	for {
		_, err := unix.Wait4(r.pid, &ws, 0, nil)
		if err == nil && ws.Stopped() && stopped != nil {
			if err := stopped(ws); err != nil {
				failed = errors.Join(failed, err, r.Kill())
			}
			continue
		}
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, 0, os.NewSyscallError("wait4", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = make([]Result, len(r.trials))
	for n := range r.results {
		r.results[n] = readResult(r.mem, n)
	}
	err := os.NewSyscallError("munmap", unix.Munmap(r.mem))
	r.mem = nil
	return r.results, ws, errors.Join(failed, err)
}
