package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// receiveBuffer is for the questions of all workloads, in bytes: what comes
// while one of them sends as fast as it can.
const receiveBuffer = 1 << 20

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

func listen(addrs []netip.Addr, device string) (s sockets, err error) {
	for _, a := range addrs {
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			fd, err := bindSoon(a, kind, device)
			if err != nil {
				s.close()
				if errors.Is(err, unix.EADDRINUSE) {
					return sockets{}, fmt.Errorf("listen on %s: another program listens there: %w", netip.AddrPortFrom(a, Port), err)
				}
				return sockets{}, fmt.Errorf("listen on %s: %w", netip.AddrPortFrom(a, Port), err)
			}
			if kind == unix.SOCK_DGRAM {
				s.udp = append(s.udp, fd)
			} else {
				s.tcp = append(s.tcp, fd)
			}
		}
	}
	return s, nil
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
