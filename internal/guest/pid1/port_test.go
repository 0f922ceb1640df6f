package pid1

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// link returns a connection over one end of a socket pair, and the other end.
func link(t *testing.T) (*port, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, far := &port{file: os.NewFile(uintptr(fds[0]), "port"), epoll: -1}, os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { p.file.Close(); far.Close() })
	return p, far
}

// TestConnectionClose: Close ends a read and a write that wait, and what was
// not written then never is, while the port serves the next session.
func TestConnectionClose(t *testing.T) {
	p, far := link(t)
	first, err := p.session()
	if err != nil {
		t.Fatal(err)
	}
	read, written := make(chan error, 1), make(chan error, 1)
	go func() { _, err := first.Read(make([]byte, 1)); read <- err }()
	go func() { _, err := first.Write(make([]byte, 16<<20)); written <- err }()
	time.Sleep(50 * time.Millisecond) // both wait, most probably; it must hold in any case
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []chan error{read, written} {
		if err := <-c; !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v, want that it is closed", err)
		}
	}
	far.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	io.Copy(io.Discard, far) // what the first session had sent
	far.SetReadDeadline(time.Time{})
	second, err := p.session()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := second.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if n, err := far.Read(b); err != nil || string(b[:n]) != "new" {
		t.Errorf("the second session sent %q, %v", b[:n], err)
	}
	if _, err := first.Read(b); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the first session reads: %v", err)
	}
	if _, err := first.Write(b); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the first session writes: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
}
