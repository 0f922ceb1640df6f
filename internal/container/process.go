package container

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Process is a process that Exec made in a container.
type Process struct {
	pid      int
	pidfd    int
	running  *launch.Running
	terminal *os.File
}

// Pid is its process ID on the host.
func (p *Process) Pid() int { return p.pid }

// Terminal is the person's side of its terminal, nil without one, and the
// caller's to close.
func (p *Process) Terminal() *os.File { return p.terminal }

// Wait waits for the end of the process. It is not for detached ones.
func (p *Process) Wait(ctx context.Context) (workload.Exit, error) { return wait(ctx, p.running) }

// Signal sends sig. The error wraps workload.ErrNotRunning when the process
// has ended.
func (p *Process) Signal(sig syscall.Signal) error { return signal(p.pidfd, sig) }

// signalGroup is PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), Linux 6.9.
const signalGroup = 1 << 2

// SignalGroup sends sig to the process group that p leads: it has a session of
// its own.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	if p.pidfd < 0 {
		return workload.ErrNotRunning
	}
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, signalGroup)
	if errors.Is(err, unix.EINVAL) {
		// An older kernel. While p is not reaped, nobody else gets its number.
		select {
		case <-p.running.Exited():
			return workload.ErrNotRunning
		default:
			err = unix.Kill(-p.pid, sig)
		}
	}
	if errors.Is(err, unix.ESRCH) {
		return workload.ErrNotRunning
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// Close releases the descriptors of p. The process goes on.
func (p *Process) Close() {
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
}

// outcome waits until the process runs its program, as launch.Outcome does. The
// container can see the process and stop it on its way: ctx ends the wait, and
// the process.
func (p *Process) outcome(ctx context.Context, status *os.File, explain func(index, errno uint64) error) error {
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	})
	err := launch.Outcome(int(status.Fd()), explain)
	if !stop() {
		<-killed
		return ctx.Err()
	}
	return err
}

// reap waits for a process that is dying, whether somebody else of this
// program waits for it or nobody does.
func (p *Process) reap() {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, int(reapTimeout/time.Millisecond)); err != unix.EINTR {
			break
		}
	}
	unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
}

const reapTimeout = 10 * time.Second

func wait(ctx context.Context, r *launch.Running) (workload.Exit, error) {
	if r == nil {
		return workload.Exit{}, errors.New("another process created this container")
	}
	select {
	case <-r.Exited():
	case <-ctx.Done():
		return workload.Exit{}, ctx.Err()
	}
	ws, err := r.Wait()
	if err != nil {
		return workload.Exit{}, err
	}
	return exitOf(ws), nil
}

func exitOf(ws unix.WaitStatus) workload.Exit {
	e := workload.Exit{Code: ws.ExitStatus(), At: time.Now().UTC()}
	if ws.Signaled() {
		e.Signal = int(ws.Signal())
		e.Code = 128 + e.Signal
	}
	return e
}

func signal(pidfd int, sig syscall.Signal) error {
	if pidfd < 0 {
		return workload.ErrNotRunning
	}
	err := unix.PidfdSendSignal(pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return workload.ErrNotRunning
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// deniedPerSecond bounds how many denied calls are reported; the others are
// counted.
const deniedPerSecond = 10

// serve serves a seccomp listener or gives it away.
func (c *process) serve(listener *os.File, pid int) error {
	if c.report == nil {
		return c.give(listener, pid)
	}
	go func() { // ends with the last process that has the filter
		defer listener.Close()
		seccomp.NewReporter(listener, c.original, deniedPerSecond, c.report).Run(context.Background())
	}()
	return nil
}
