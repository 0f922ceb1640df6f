package wire

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// The sockets are plain descriptors in an os.File, which the Go runtime polls
// like a net.Conn: package net would cost the supervisor memory that it needs
// for nothing else.

// Pair returns two connected stream sockets.
func Pair() (a, b *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// through gives f the address of the socket name in dir. It names the directory by
// descriptor, as an address holds at most 107 bytes and a path may be longer.
func through(dir, name string, f func(*syscall.SockaddrUnix) error) error {
	fd, err := syscall.Open(dir, 0x200000 /* O_PATH */ |syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer syscall.Close(fd)
	return f(&syscall.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name})
}

func socket() (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	return fd, os.NewSyscallError("socket", err)
}

// Dial connects to the supervisor that listens in dir. The error wraps
// os.ErrNotExist or syscall.ECONNREFUSED if there is none.
func Dial(dir string) (*os.File, error) {
	fd, err := socket()
	if err != nil {
		return nil, err
	}
	// connect on a unix stream socket does not wait for accept; EAGAIN is a
	// full backlog, in which case a blocking connect waits for room.
	err = through(dir, "socket", func(a *syscall.SockaddrUnix) error {
		err := syscall.Connect(fd, a)
		for err == syscall.EAGAIN || err == syscall.EINTR {
			if err := syscall.SetNonblock(fd, false); err != nil {
				return err
			}
			err = syscall.Connect(fd, a)
		}
		return os.NewSyscallError("connect", err)
	})
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("connect to supervisor: %w", err)
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// Listener accepts connections in a run-time directory.
type Listener struct {
	f *os.File
}

// Listen makes the socket in dir, in the place of one that a dead supervisor
// left.
func Listen(dir string) (*Listener, error) {
	fd, err := socket()
	if err != nil {
		return nil, err
	}
	err = through(dir, "socket", func(a *syscall.SockaddrUnix) error {
		if err := os.Remove(a.Name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := syscall.Bind(fd, a); err != nil {
			return os.NewSyscallError("bind", err)
		}
		if err := os.Chmod(a.Name, 0o600); err != nil {
			return err
		}
		return os.NewSyscallError("listen", syscall.Listen(fd, 128))
	})
	if err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("listen in %s: %w", dir, err)
	}
	return &Listener{os.NewFile(uintptr(fd), "socket")}, nil
}

// scarce reports whether err says that there is no room for a connection now.
func scarce(err error) bool {
	return err == syscall.EMFILE || err == syscall.ENFILE || err == syscall.ENOBUFS || err == syscall.ENOMEM //nolint:errorlint // raw errno
}

// scarcity is how long Accept waits where there is no room for a connection, which
// stays where it is meanwhile.
const scarcity = 20 * time.Millisecond

// Accept returns the next connection of a process that runs as this user or as
// root, and closes those of others. Where descriptors or memory are used up it waits:
// whoever gives up would be a supervisor that nobody can reach any more.
func (l *Listener) Accept() (*os.File, error) {
	raw, err := l.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		var fd int
		var aerr error
		err := raw.Read(func(s uintptr) bool {
			fd, _, aerr = syscall.Accept4(int(s), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
			return aerr != syscall.EAGAIN
		})
		if err != nil {
			return nil, err
		}
		if aerr == syscall.ECONNABORTED || aerr == syscall.EINTR {
			continue
		}
		if scarce(aerr) {
			time.Sleep(scarcity)
			continue
		}
		if aerr != nil {
			return nil, os.NewSyscallError("accept", aerr)
		}
		f := os.NewFile(uintptr(fd), "socket")
		if err := checkPeer(f); err != nil {
			f.Close()
			continue
		}
		return f, nil
	}
}

// Close stops Accept. The socket's file stays.
func (l *Listener) Close() error { return l.f.Close() }

// checkPeer refuses connections of other users, see SO_PEERCRED in unix(7). The
// directories' modes refuse them too; this holds even if somebody loosens these.
func checkPeer(f *os.File) error {
	cred, err := peer(f)
	if err != nil {
		return err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("connection of user %d refused", cred.Uid)
	}
	return nil
}

// Peer is the process at the other end of a connection that Dial made.
func Peer(f *os.File) (pid int, err error) {
	cred, err := peer(f)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

func peer(f *os.File) (*syscall.Ucred, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *syscall.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	runtime.KeepAlive(f)
	return cred, os.NewSyscallError("getsockopt", cerr)
}
