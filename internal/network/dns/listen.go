package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/resolve"
)

// receiveBuffer is for questions that were not read yet, in bytes.
const receiveBuffer = 512 << 10

// sockets are bound to the addresses that workloads send to.
type sockets struct{ udp, tcp []int }

func (s sockets) close() {
	for _, fd := range append(s.udp, s.tcp...) {
		unix.Close(fd)
	}
}

// listen binds sockets for UDP and TCP to each address.
func (c Config) listen() (s sockets, err error) {
	if c.NetNS == nil {
		return listen(c.Listen, c.Device)
	}
	ns, err := c.NetNS()
	if err != nil {
		return s, fmt.Errorf("the name server's network namespace: %w", err)
	}
	defer ns.Close()
	onThread(func() {
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter the name server's network namespace: %w", os.NewSyscallError("setns", err))
			return
		}
		s, err = listen(c.Listen, c.Device)
	})
	return s, err
}

// onThread runs f on a thread that ends with it, so that nobody else sees the
// thread's namespaces. The main thread, which would not end, is kept busy
// meanwhile.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f)
			runtime.UnlockOSThread()
		} else {
			f()
		}
		close(done)
	}()
	<-done
}

// listen binds one socket for TCP, and as many as there are queues for UDP, to each
// address. Those for UDP share a port, so the one for TCP comes first: it tells
// when somebody else has the port.
func listen(addrs []netip.Addr, device string) (s sockets, err error) {
	fail := func(a netip.Addr, err error) (sockets, error) {
		s.close()
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("another program listens there: %w", err)
		}
		return sockets{}, fmt.Errorf("listen on %s: %w", netip.AddrPortFrom(a, Port), err)
	}
	for _, a := range addrs {
		fd, err := bindSoon(a, unix.SOCK_STREAM, device)
		if err != nil {
			return fail(a, err)
		}
		s.tcp = append(s.tcp, fd)
		for range resolve.Queues {
			if fd, err = bind(a, unix.SOCK_DGRAM, device); err != nil {
				return fail(a, err)
			}
			s.udp = append(s.udp, fd)
		}
		if err := bySource(fd, a.Is4()); err != nil {
			return fail(a, err)
		}
	}
	return s, nil
}

// bySource has the kernel choose among the sockets of a port by the address that a
// datagram comes from: socket(7), SO_ATTACH_REUSEPORT_CBPF.
func bySource(fd int, four bool) error {
	const networkHeader = 0xfff00000 // SKF_NET_OFF, as the kernel's offset
	at := uint32(networkHeader + 12) // the source
	if !four {
		at = networkHeader + 8 + 12 // the last four bytes of it
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: resolve.Queues},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	return os.NewSyscallError("setsockopt(SO_ATTACH_REUSEPORT_CBPF)",
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}))
}

// bindSoon waits a little while the address is taken: a name server whose start
// was cut off is gone in a moment, and nobody could wait for its end.
func bindSoon(a netip.Addr, kind int, device string) (fd int, err error) {
	for range 20 {
		if fd, err = bind(a, kind, device); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fd, err
}

func bind(a netip.Addr, kind int, device string) (fd int, err error) {
	domain := unix.AF_INET6
	if a.Is4() {
		domain = unix.AF_INET
	}
	if fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	set := func(name string, level, option, value int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt("+name+")", unix.SetsockoptInt(fd, level, option, value))
		}
	}
	// The interface may get its address later, or have it on probation (RFC 4862).
	var address unix.Sockaddr
	if a.Is4() {
		set("IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
		address = &unix.SockaddrInet4{Port: Port, Addr: a.As4()}
	} else {
		set("IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		set("IPV6_FREEBIND", unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
		address = &unix.SockaddrInet6{Port: Port, Addr: a.As16()}
	}
	if kind == unix.SOCK_STREAM {
		set("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // connections of the one before, in TIME_WAIT
	} else {
		set("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		set("SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	}
	if err == nil && device != "" {
		err = os.NewSyscallError("setsockopt(SO_BINDTODEVICE)", unix.BindToDevice(fd, device))
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, address))
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = os.NewSyscallError("listen", unix.Listen(fd, 128))
	}
	return fd, err
}
