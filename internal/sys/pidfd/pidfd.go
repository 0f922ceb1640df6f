// Package pidfd watches processes that are not this process's children
// (pidfd_open(2)).
package pidfd

import (
	"context"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open returns a descriptor of the process pid. IsGone tells whether the error
// says that there is none.
func Open(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(pid)), nil
}

// IsGone reports whether an error of pidfd_open says that no process has the ID
// of one that was there. A thread may have it, which is not a process's first:
// that is EINVAL, and ENOENT from Linux 6.9 on.
func IsGone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT)
}

// Wait returns when the process has ended, whether or not its parent has seen
// it, or when ctx is done. It takes no thread meanwhile. f is closed.
func Wait(ctx context.Context, f *os.File) error {
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ended error
	err = conn.Read(func(fd uintptr) bool {
		var done bool
		done, ended = readable(int(fd))
		return done || ended != nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, ended)
}

// Kill sends a process SIGKILL. One that has ended is no error.
func Kill(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(failed, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", failed)
}

func readable(fd int) (bool, error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if err == unix.EINTR { //nolint:errorlint // raw errno
			continue
		}
		return n > 0, err
	}
}
