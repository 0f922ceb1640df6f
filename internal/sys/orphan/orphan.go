// Package orphan takes over processes whose parents have ended: what a program
// leaves behind that we started, such as the container of an OCI runtime.
package orphan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pidfd"
)

// Expect makes this process the parent of every orphan among its descendants
// (PR_SET_CHILD_SUBREAPER in prctl(2)). It is for good.
var Expect = sync.OnceValue(func() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
})

// ErrNotOurs tells that a process is not a child of this one.
var ErrNotOurs = errors.New("not a child of this process")

// Process is an orphan that this process has taken over, and reaps.
type Process struct {
	pid   int
	mu    sync.RWMutex // of fd and over
	fd    *os.File
	over  bool
	ended chan struct{}
	ws    unix.WaitStatus
	err   error
}

// Take takes over the child pid, which nobody else waits for. The error wraps
// ErrNotOurs when there is no such child: whoever named it has no right to it.
func Take(pid int) (*Process, error) {
	p := &Process{pid: pid, ended: make(chan struct{})}
	if pid <= 0 {
		return nil, fmt.Errorf("process %d: %w", pid, ErrNotOurs)
	}
	// Of a child that has not been waited for, the number stays its own.
	var ws unix.WaitStatus
	switch got, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil); {
	case errors.Is(err, unix.ECHILD):
		return nil, fmt.Errorf("process %d: %w", pid, ErrNotOurs)
	case err != nil:
		return nil, os.NewSyscallError("wait4", err)
	case got == pid:
		p.ws, p.over = ws, true
		close(p.ended)
		return p, nil
	}
	fd, err := pidfd.Open(pid)
	if err != nil {
		return nil, err
	}
	watched, err := pidfd.Open(pid)
	if err != nil {
		fd.Close()
		return nil, err
	}
	p.fd = fd
	go p.reap(watched)
	return p, nil
}

// reap waits for the end, without a thread of its own meanwhile.
func (p *Process) reap(watched *os.File) {
	defer close(p.ended)
	err := pidfd.Wait(context.Background(), watched)
	// From here on the number may become another's.
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.fd.Close()
	for err == nil {
		if _, err = unix.Wait4(p.pid, &p.ws, 0, nil); err == nil {
			return
		}
		if errors.Is(err, unix.EINTR) {
			err = nil
		}
	}
	p.err = err
}

// Pid is its process ID.
func (p *Process) Pid() int { return p.pid }

// Ended is closed when the process has ended and is reaped.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Status is how it ended, once it has.
func (p *Process) Status() (syscall.WaitStatus, error) { return syscall.WaitStatus(p.ws), p.err }

// While calls f with the process ID while that is certainly this process's, or
// returns os.ErrProcessDone.
func (p *Process) While(f func(pid int) error) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.over {
		return os.ErrProcessDone
	}
	return f(p.pid)
}

// Signal sends a signal, or returns os.ErrProcessDone.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.While(func(int) error {
		err := unix.PidfdSendSignal(int(p.fd.Fd()), sig, nil, 0)
		if errors.Is(err, unix.ESRCH) {
			return os.ErrProcessDone
		}
		return os.NewSyscallError("pidfd_send_signal", err)
	})
}
