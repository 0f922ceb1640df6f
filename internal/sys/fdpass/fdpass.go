// Package fdpass hands an open file to another process over its unix socket
// (SCM_RIGHTS, unix(7)). It does so without the net package, whose start-up
// cost every command would pay.
package fdpass

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Send connects to the stream socket at path and sends data with the
// descriptor of f beside its first byte. data must not be empty: a stream
// socket drops a descriptor that comes with nothing.
//
// Console and pidfd sockets of OCI runtimes take the file's name as data,
// listeners of seccomp filters a JSON document (runtime-spec config-linux.md).
func Send(path string, data []byte, f *os.File) error {
	if len(data) == 0 {
		return errors.New("a descriptor cannot be sent without data")
	}
	s, err := connect(path)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", path, err)
	}
	defer unix.Close(s)
	oob := unix.UnixRights(int(f.Fd()))
	for len(data) > 0 {
		n, err := unix.SendmsgN(s, data, oob, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send a descriptor over %s: %w", path, err)
		}
		data, oob = data[n:], nil
	}
	runtime.KeepAlive(f)
	return nil
}

// sunPath is the room for a path in a socket's address, its final NUL left out.
const sunPath = 107

// connect connects to the socket at path. A path that is too long for an
// address is reached through a descriptor of its directory.
func connect(path string) (int, error) {
	if len(path) > sunPath {
		dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		defer unix.Close(dir)
		path = fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))
		if len(path) > sunPath {
			return -1, unix.ENAMETOOLONG
		}
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for {
		err = unix.Connect(s, &unix.SockaddrUnix{Name: path})
		if err == nil {
			return s, nil
		}
		if err != unix.EINTR {
			unix.Close(s)
			return -1, err
		}
	}
}
