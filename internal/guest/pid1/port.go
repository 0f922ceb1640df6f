package pid1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// PortName is the name of the virtio port that leads to the host.
const PortName = "bulkhead.agent"

// portLimit is how long the port may take to appear.
const portLimit = 30 * time.Second

// findPort returns the device of the port that the host gave this name.
func findPort(name string) (string, error) {
	var device string
	err := await(portLimit, func() (bool, error) {
		files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return false, err
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err == nil && strings.TrimRight(string(b), "\n") == name {
				device = "/dev/" + filepath.Base(filepath.Dir(file))
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("the machine has no virtio port %q: %w", name, err)
	}
	return device, nil
}

// A port is a virtio port. It stays open: the host comes and goes.
//
//	          ┌────────────────── host is gone ◀────────────────┐
//	          ▼                                                 │
//	waiting for the host ── connect ──▶ session ── Close ──▶ ended
//
// While no host is there, a read returns no bytes at once, and poll(2) always
// reports POLLHUP (drivers/char/virtio_console.c): what waits for the host must
// not do it by reading.
//
// The port tells that the host is gone, not that it was gone: one that comes
// back within the time that the guest needs to look finds the old session still
// there, sees that what it reads is no greeting, and has to hang up and come
// again later.
type port struct {
	file  *os.File // non-blocking and polled by the runtime
	epoll int
}

func openPort(device string) (*port, error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s cannot be polled: %w", device, err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p := &port{file: f, epoll: epoll}
	err = p.control(func(fd int) error {
		// Edge-triggered: only a change wakes the waiter, and the host's coming
		// makes the port writable.
		return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLET&0xffffffff})
	})
	if err != nil {
		p.close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return p, nil
}

func (p *port) close() {
	p.file.Close()
	unix.Close(p.epoll)
}

func (p *port) control(f func(fd int) error) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// connected tells whether the host's side is open.
func (p *port) connected() (bool, error) {
	poll := []unix.PollFd{{Events: unix.POLLOUT}}
	err := p.control(func(fd int) error {
		poll[0].Fd = int32(fd)
		for {
			if _, err := unix.Poll(poll, 0); err != unix.EINTR {
				return err
			}
		}
	})
	return err == nil && poll[0].Revents&unix.POLLHUP == 0, os.NewSyscallError("poll", err)
}

// awaitHost returns when the host's side is open.
func (p *port) awaitHost() error {
	var events [1]unix.EpollEvent
	for {
		if there, err := p.connected(); there || err != nil {
			return err
		}
		if _, err := unix.EpollWait(p.epoll, events[:], -1); err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
	}
}

// session returns the port as a connection that can be closed without closing
// the port. The last one must be closed.
func (p *port) session() (io.ReadWriteCloser, error) {
	if err := p.file.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &connection{file: p.file}, nil
}

// connection is the port during one session.
type connection struct {
	file   *os.File
	busy   sync.RWMutex // held for reading by whoever reads or writes
	mu     sync.Mutex   // of closed
	closed bool
}

func (c *connection) begin() error {
	c.busy.RLock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.busy.RUnlock()
		return os.ErrClosed
	}
	return nil
}

// Read reads what the host sent. It returns io.EOF when the host is gone.
func (c *connection) Read(b []byte) (int, error) {
	if err := c.begin(); err != nil {
		return 0, err
	}
	defer c.busy.RUnlock()
	n, err := c.file.Read(b)
	return n, ended(err)
}

func (c *connection) Write(b []byte) (int, error) {
	if err := c.begin(); err != nil {
		return 0, err
	}
	defer c.busy.RUnlock()
	n, err := c.file.Write(b)
	return n, ended(err)
}

func ended(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrClosed // only Close sets a deadline
	}
	return err
}

// Close ends what reads and writes, and returns when nothing does any more: a
// write left waiting would go on in the next session.
func (c *connection) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	if err := c.file.SetDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	c.busy.Lock() // and never again
	defer c.busy.Unlock()
	return nil
}
