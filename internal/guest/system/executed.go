package system

import (
	"context"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// executed is a process made by Exec. Its pidfd is closed when its end has been
// seen.
type executed struct {
	p        *container.Process
	terminal boundary.Terminal

	mu   sync.RWMutex
	exit *workload.Exit
}

// Wait returns how it ended; every call returns the same.
func (e *executed) Wait(ctx context.Context) (workload.Exit, error) {
	exit, err := e.p.Wait(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exit != nil {
		return *e.exit, nil
	}
	if err == nil {
		e.exit = &exit
		e.p.Close()
	}
	return exit, err
}

// Signal sends a signal to it.
func (e *executed) Signal(_ context.Context, sig syscall.Signal) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.exit != nil {
		return workload.ErrNotRunning
	}
	return e.p.Signal(sig)
}

// Terminal is its terminal, nil if it has none.
func (e *executed) Terminal() boundary.Terminal { return e.terminal }

// PID is its process ID in the guest.
func (e *executed) PID() int { return e.p.Pid() }

// terminal is the master side of a pseudoterminal.
type terminal struct{ *os.File }

// terminalOf takes over f, nil for none. The runtime polls the result, so that
// Close ends a Read and deadlines work.
func terminalOf(f *os.File) (boundary.Terminal, error) {
	if f == nil {
		return nil, nil
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return terminal{os.NewFile(uintptr(fd), "terminal")}, nil
}

// Resize sets the size that programs inside see, and signals them.
func (t terminal) Resize(rows, cols uint16) error {
	raw, err := t.SyscallConn() // not Fd: that ends the polling
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}); err != nil {
		return err
	}
	return os.NewSyscallError("ioctl TIOCSWINSZ", set)
}
