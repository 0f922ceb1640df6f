// Package rtnl speaks as much rtnetlink(7) as it takes to put network
// interfaces where they belong: find them, name them, move them to another
// network namespace, give them addresses and routes. Programs that start with
// every workload use it; what makes bridges and rules has libraries that are
// larger.
//
// A socket belongs to the network namespace in which it was opened, whatever
// becomes of the thread: a Conn of another namespace is opened there, by In or
// DialIn, and used anywhere.
package rtnl

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Conn is a rtnetlink socket. Its methods may be called from any goroutine; one
// that waits holds up the others.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
}

// patience is how long the kernel may take to answer, in seconds; it does so
// before sendto(2) returns, unless it lacks memory.
const patience = 10

// Dial opens a socket in the network namespace of the calling thread.
func Dial() (*Conn, error) { return dial(0) }

func dial(groups uint32) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket(NETLINK_ROUTE)", err)
	}
	c := &Conn{fd: fd}
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: patience})
	if err == nil {
		// The names of attributes that are wrong, for people; see the kernel's
		// Documentation/userspace-api/netlink/intro.rst.
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return c, nil
}

// DialIn opens a socket in a network namespace, nil for the caller's.
func DialIn(ns *os.File) (c *Conn, err error) {
	err = In(ns, func() (err error) {
		c, err = Dial()
		return err
	})
	return c, err
}

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// do sends a request and calls each with every message of the answer but the
// acknowledgement. flags are those beside NLM_F_REQUEST and NLM_F_ACK.
func (c *Conn) do(what string, kind uint16, flags uint16, body []byte, each func(kind uint16, body []byte) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	b := make([]byte, headerSize, headerSize+len(body))
	binary.NativeEndian.PutUint32(b[0:], uint32(headerSize+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(b[8:], c.seq)
	if err := unix.Sendto(c.fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("%s: %w", what, os.NewSyscallError("sendto", err))
	}
	for {
		b, err := c.receive()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		over, err := answer(b, c.seq, each)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if over {
			return nil
		}
	}
}

// receive returns the next datagram of the kernel's. Other processes may write
// to the socket too, where they may: what they say is dropped.
func (c *Conn) receive() ([]byte, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		b := make([]byte, max(n, headerSize))
		n, from, err := unix.Recvfrom(c.fd, b, 0)
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if a, ok := from.(*unix.SockaddrNetlink); ok && a.Pid == 0 {
			return b[:n], nil
		}
	}
}
