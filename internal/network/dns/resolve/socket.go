package resolve

import (
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// A socket is one that is bound to an address of the bridge. Package net would
// take several times the memory of the rest. Package unix asks the kernel for
// each address what protocol it is of; package syscall does not.
type socket struct {
	file *os.File
	conn syscall.RawConn
}

// newSocket takes over a descriptor, which does not block.
func newSocket(fd int) (*socket, error) {
	f := os.NewFile(uintptr(fd), "socket "+strconv.Itoa(fd))
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &socket{f, conn}, nil
}

// receive waits for one datagram. A size above that of b means that it did not
// fit.
func (s *socket) receive(b []byte) (size int, from syscall.Sockaddr, err error) {
	var failed error
	err = s.conn.Read(func(fd uintptr) bool {
		size, from, failed = syscall.Recvfrom(int(fd), b, syscall.MSG_TRUNC)
		return failed != syscall.EAGAIN //nolint:errorlint // raw errno
	})
	if err == nil {
		err = failed
	}
	return size, from, err
}

// send sends one datagram, or drops it when there is no room: whoever waits for
// it asks again.
func (s *socket) send(b []byte, to syscall.Sockaddr) {
	s.conn.Control(func(fd uintptr) { //nolint:errcheck // as if it was lost on the way
		for syscall.Sendto(int(fd), b, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, to) == syscall.EINTR { //nolint:errorlint // raw errno
			continue
		}
	})
}

// accept waits for a connection.
func (s *socket) accept() (c *os.File, from syscall.Sockaddr, err error) {
	var failed error
	fd := -1
	err = s.conn.Read(func(listener uintptr) bool {
		fd, from, failed = syscall.Accept4(int(listener), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
		return failed != syscall.EAGAIN //nolint:errorlint // raw errno
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), "connection"), from, nil
}

// address is the address of a peer, the zero Addr if it has none.
func address(a syscall.Sockaddr) netip.Addr {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *syscall.SockaddrInet6:
		return netip.AddrFrom16(a.Addr).Unmap()
	}
	return netip.Addr{}
}
