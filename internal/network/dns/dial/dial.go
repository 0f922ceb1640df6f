// Package dial gives the resolver of a network's name server its sockets. The
// resolver is in a network namespace with nothing in it; the dialer is in the
// host's, and does nothing but this, over a pair of SOCK_SEQPACKET sockets:
//
//	resolver                   dialer
//	  one byte: which     ──>
//	  [an address]        ──>
//	                      <──  one byte: 0 and a socket, or an error number
//
// Which is the number of an upstream server, doubled, plus one for TCP. The
// servers are those that the dialer was started with; with the address of a
// workload behind it, of 4 or 16 bytes in the same message, those that its lease
// names, which the dialer reads itself: what the resolver says of them counts for
// nothing. A TCP socket is still connecting when it comes.
package dial

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ping asks for no socket: the answer is EINVAL.
const ping = 0xff

// Serve answers requests on the descriptor until its other end is closed. leases is
// the directory of leases, "" if workloads have no servers of their own.
func Serve(fd int, upstream []netip.AddrPort, leases string) error {
	request := make([]byte, maxRequest+1)
	for {
		n, err := unix.Read(fd, request)
		switch {
		case err == unix.EINTR: //nolint:errorlint // raw errno
			continue
		case err != nil:
			return os.NewSyscallError("read", err)
		case n == 0:
			return nil
		}
		socket, errno := -1, unix.EINVAL
		if to, tcp, ok := choose(request[:n], upstream, leases); ok {
			socket, errno = open(to, tcp)
		}
		var rights []byte
		if socket >= 0 {
			rights = unix.UnixRights(socket)
		}
		err = unix.Sendmsg(fd, []byte{byte(errno)}, rights, nil, unix.MSG_NOSIGNAL)
		if socket >= 0 {
			unix.Close(socket)
		}
		if err == unix.EPIPE { //nolint:errorlint // raw errno
			return nil
		}
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// maxRequest is the length of a request about a workload's own servers.
const maxRequest = 1 + 16

// choose returns the server that a request means.
func choose(request []byte, upstream []netip.AddrPort, leases string) (to netip.AddrPort, tcp, ok bool) {
	if len(request) > 1 {
		a, valid := netip.AddrFromSlice(request[1:])
		if !valid || a.Is4In6() || leases == "" {
			return to, false, false
		}
		upstream = nil
		for _, s := range ownServers(leases, a) {
			upstream = append(upstream, netip.AddrPortFrom(s, Port))
		}
	}
	if i := int(request[0] >> 1); i < len(upstream) {
		return upstream[i], request[0]&1 != 0, true
	}
	return to, false, false
}

// open makes a socket that is connected to a server. The kernel binds it to a
// free port that it chooses at random.
func open(to netip.AddrPort, tcp bool) (int, unix.Errno) {
	domain, kind := unix.AF_INET6, unix.SOCK_DGRAM
	var address unix.Sockaddr
	if a := to.Addr(); a.Is4() {
		domain = unix.AF_INET
		address = &unix.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	} else {
		address = &unix.SockaddrInet6{Port: int(to.Port()), Addr: a.As16(), ZoneId: zone(a)}
	}
	if tcp {
		kind = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Connect(fd, address)
		if err == nil || err == unix.EINPROGRESS { //nolint:errorlint // raw errno
			return fd, 0
		}
		unix.Close(fd)
	}
	var errno unix.Errno
	if !errors.As(err, &errno) || errno == 0 || errno > 255 {
		errno = unix.EIO
	}
	return -1, errno
}

// zone is the interface of a link-local address, by its number: names are
// resolved by whoever starts the dialer.
func zone(a netip.Addr) (n uint32) {
	for _, c := range []byte(a.Zone()) {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + uint32(c-'0')
	}
	return n
}

// Client is the resolver's end.
type Client struct {
	mu   sync.Mutex
	file *os.File
	conn syscall.RawConn
	gone error // why the dialer cannot be asked any more
}

// NewClient takes over a descriptor.
func NewClient(fd int) (*Client, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	c := &Client{file: os.NewFile(uintptr(fd), "dialer")}
	var err error
	if c.conn, err = c.file.SyscallConn(); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the dialer.
func (c *Client) Close() error { return c.file.Close() }

// Ping tells whether the dialer answers.
func (c *Client) Ping() error {
	_, err := c.ask([]byte{ping})
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return fmt.Errorf("no answer from the dialer: %w", err)
}

// Dial returns a new socket that is connected, or connecting, to an upstream
// server: one of the network's, or, unless of is the zero Addr, of those that the
// workload with that address has itself. Once the dialer is gone, it fails each time.
func (c *Client) Dial(of netip.Addr, server int, tcp bool) (*os.File, error) {
	request := []byte{byte(server << 1)}
	if tcp {
		request[0] |= 1
	}
	fd, err := c.ask(append(request, of.AsSlice()...))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "upstream"), nil
}

// patience is longer than a dialer that lives ever takes: it waits for nothing.
const patience = 10 * time.Second

func (c *Client) ask(request []byte) (fd int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone != nil {
		return -1, c.gone
	}
	if err := c.file.SetDeadline(time.Now().Add(patience)); err != nil {
		return -1, err
	}
	answer, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	var n, size int
	_, err = c.file.Write(request)
	if err == nil {
		var received error
		err = c.conn.Read(func(s uintptr) bool {
			for {
				n, size, _, _, received = unix.Recvmsg(int(s), answer, rights, unix.MSG_CMSG_CLOEXEC)
				if received != unix.EINTR { //nolint:errorlint // raw errno
					return received != unix.EAGAIN //nolint:errorlint // raw errno
				}
			}
		})
		err = errors.Join(err, received)
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		// An answer that came later would be taken for the next one.
		c.gone = fmt.Errorf("the dialer is gone: %w", err)
		return -1, c.gone
	}
	fd = socket(rights[:size])
	if fd < 0 && answer[0] == 0 {
		answer[0] = byte(unix.EMFILE) // there was no room for it
	}
	if answer[0] != 0 {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, unix.Errno(answer[0])
	}
	return fd, nil
}

func socket(rights []byte) int {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1
	}
	return fds[0]
}
