package fdpass

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Listener waits for one descriptor at a socket, as the console sockets of OCI
// runtimes are used.
type Listener struct{ f *os.File }

// Listen makes the socket path, mode 0600. Its directory is reached by descriptor,
// so it may be of any length.
func Listen(path string) (*Listener, error) {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir)
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(s), path)
	if err = unix.Bind(s, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))}); err == nil {
		err = unix.Fchmodat(dir, filepath.Base(path), 0o600, 0)
	}
	if err == nil {
		err = unix.Listen(s, 1)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return &Listener{f}, nil
}

// Close stops listening.
func (l *Listener) Close() error { return l.f.Close() }

// Receive waits for somebody to connect and takes the descriptor that he sends.
func (l *Listener) Receive(ctx context.Context) (*os.File, error) {
	conn := -1
	err := ready(ctx, l.f, func(fd int) (err error) {
		conn, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("wait at %s: %w", l.f.Name(), err)
	}
	c := os.NewFile(uintptr(conn), l.f.Name())
	defer c.Close()
	data, oob, n := make([]byte, 4096), make([]byte, unix.CmsgSpace(4)), 0
	err = ready(ctx, c, func(fd int) (err error) {
		_, n, _, _, err = unix.Recvmsg(fd, data, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("receive at %s: %w", l.f.Name(), err)
	}
	fd, err := single(oob[:n])
	if err != nil {
		return nil, fmt.Errorf("receive at %s: %w", l.f.Name(), err)
	}
	return os.NewFile(uintptr(fd), "received"), nil
}

// single takes the one descriptor of a control message; there is room for one.
func single(oob []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.New("no descriptor was sent")
}

// ready calls f until it does not ask to be called again, or ctx is done.
func ready(ctx context.Context, file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		failed = f(int(fd))
		return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}
