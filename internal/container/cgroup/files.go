package cgroup

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// maxRead bounds what is read from a cgroup file. The longest that is read
// whole is cgroup.procs; 16 MB holds two million process IDs.
const maxRead = 16 << 20

// Cgroup files are opened with plain system calls: os.OpenFile would offer
// each one to the poller, which doubles the price of a write.

func openFile(dir, name string, flags int) (int, error) {
	return at.Open(at.CWD, dir+"/"+name, flags)
}

// writeFile writes each value with its own write(2): the kernel takes one
// setting per write.
func writeFile(dir, name string, values ...string) error {
	fd, err := openFile(dir, name, syscall.O_WRONLY)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	for _, v := range values {
		if err := writeFD(fd, v); err != nil {
			return &os.PathError{Op: "write " + strings.TrimSpace(v) + " to", Path: dir + "/" + name, Err: err}
		}
	}
	return nil
}

func writeFD(fd int, value string) error {
	for {
		_, err := syscall.Write(fd, []byte(value))
		if err != syscall.EINTR {
			return err
		}
	}
}

func readFile(dir, name string) (string, error) { return readFileAt(at.CWD, dir, name) }

// readFileAt is readFile of a directory that is named in an open one.
func readFileAt(parent int, dir, name string) (string, error) {
	fd, err := at.Open(parent, dir+"/"+name, syscall.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	data, err := readFD(fd)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: dir + "/" + name, Err: err}
	}
	return string(data), nil
}

func readFD(fd int) ([]byte, error) {
	buf := make([]byte, 0, 512)
	for len(buf) < maxRead {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := syscall.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return nil, err
		case n == 0:
			return buf, nil
		default:
			buf = buf[:len(buf)+n]
		}
	}
	return nil, io.ErrShortBuffer
}

func exists(dir, name string) bool {
	return syscall.Access(dir+"/"+name, 0) == nil
}

// keyed returns the number behind a key in a file of "key value" lines.
func keyed(text, key string) (string, bool) {
	for line := range strings.SplitSeq(text, "\n") {
		if k, v, ok := strings.Cut(line, " "); ok && k == key {
			return v, true
		}
	}
	return "", false
}

// gone reports whether an error means that a cgroup was removed meanwhile:
// its path is not there, or an open file of it has lost its cgroup (ENODEV).
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}
