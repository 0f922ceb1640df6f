package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A published port is reserved by a socket that is bound to it and never used: no
// other program gets the port, two workloads cannot have one, and the kernel frees
// it when the workload's supervisor is gone, however that ended. It does not
// listen. What arrives is translated before it meets the socket; should our rules
// be flushed, a client is refused and not left waiting.

// checkPorts reports what is wrong with the ports that a workload with these
// addresses publishes.
func checkPorts(ports []workload.Port, addrs []netip.Addr) error {
	has := func(four bool) bool {
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is4() == four })
	}
	for _, p := range ports {
		switch {
		case p.Protocol != "tcp" && p.Protocol != "udp":
			return network.Invalidf("protocol %q: want tcp or udp", p.Protocol)
		case p.Port == 0:
			return network.Invalidf("port 0 of the workload cannot be published")
		case p.HostPortEnd != 0 && (p.HostPort == 0 || p.HostPortEnd < p.HostPort):
			return network.Invalidf("ports %d to %d are no range", p.HostPort, p.HostPortEnd)
		case p.HostIP == netip.IPv6Loopback():
			return fmt.Errorf("%w: a port cannot be published on [::1]: the kernel does not send from there by another interface, and IPv6 has no route_localnet; publish it on 127.0.0.1", workload.ErrUnsupported)
		case p.HostIP.IsValid() && !has(p.HostIP.Is4()):
			return network.Invalidf("the network has no %s, so that nothing can be published on %s", familyName(p.HostIP), p.HostIP)
		case p.HostIP.Zone() != "" || p.HostIP.Is4In6():
			return network.Invalidf("%s is not an address that ports are published on", p.HostIP)
		}
	}
	return nil
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// reserve binds the ports and returns them with the host's filled in. On error it
// has bound none. last are tried first where a free port is asked for.
func reserve(ports, last []workload.Port, addrs []netip.Addr) (_ []workload.Port, _ []*os.File, err error) {
	var files []*os.File
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	got := slices.Clone(ports)
	for i := range got {
		p := &got[i]
		fs, err := reserveOne(p, wish(*p, last), addrs)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, fs...)
	}
	return got, files, nil
}

// wish is the host's port that a port had before, 0 if there is none.
func wish(p workload.Port, last []workload.Port) uint16 {
	for _, l := range last {
		within := p.HostPort == 0 || p.HostPortEnd != 0 && l.HostPort >= p.HostPort && l.HostPort <= p.HostPortEnd
		if within && l.HostIP == p.HostIP && l.Port == p.Port && l.Protocol == p.Protocol {
			return l.HostPort
		}
	}
	return 0
}

// freeTries is how often a port that is free in one family is taken in the other
// before that is an error.
const freeTries = 20

func reserveOne(p *workload.Port, wished uint16, addrs []netip.Addr) ([]*os.File, error) {
	try := func(n uint16) ([]*os.File, error) {
		fs, got, err := bindAll(p.HostIP, n, p.Protocol, addrs)
		if err == nil {
			p.HostPort, p.HostPortEnd = got, 0
		}
		return fs, err
	}
	if wished != 0 {
		if fs, err := try(wished); err == nil {
			return fs, nil
		}
	}
	low, high := int(p.HostPort), int(max(p.HostPort, p.HostPortEnd))
	if low == 0 {
		high = freeTries
	}
	var err error
	for n := low; n <= high; n++ {
		var fs []*os.File
		ask := uint16(n)
		if p.HostPort == 0 {
			ask = 0
		}
		if fs, err = try(ask); err == nil {
			return fs, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return nil, portError(*p, err)
}

func portError(p workload.Port, err error) error {
	where := fmt.Sprintf("%d/%s", p.HostPort, p.Protocol)
	if p.HostPortEnd > p.HostPort {
		where = fmt.Sprintf("%d-%d/%s", p.HostPort, p.HostPortEnd, p.Protocol)
	}
	if p.HostIP.IsValid() {
		where = fmt.Sprintf("%s of %s", where, p.HostIP)
	}
	switch {
	case errors.Is(err, unix.EADDRINUSE) && p.HostPortEnd > p.HostPort:
		return fmt.Errorf("publish port %s: %w, every one of them", where, network.ErrPortTaken)
	case errors.Is(err, unix.EADDRINUSE) && p.Protocol == "tcp" && closing(p.HostPort):
		return fmt.Errorf("publish port %s: %w: connections of a program that had it are still being closed, which takes a minute at most", where, network.ErrPortTaken)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("publish port %s: %w", where, network.ErrPortTaken)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return network.Invalidf("publish port %s: it is not an address of this host", where)
	}
	return fmt.Errorf("publish port %s: %w", where, err)
}

// closing reports whether nobody has the TCP port any more but connections in
// TIME_WAIT. (Two sockets may share those with SO_REUSEADDR, but then they might
// also share the port itself.)
func closing(port uint16) bool {
	const timeWait = "06" // include/net/tcp_states.h
	found := false
	for _, file := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line) // sl, local address, remote address, state, …
			if len(f) < 4 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			if f[3] != timeWait {
				return false
			}
			found = true
		}
	}
	return found
}

// bindAll binds one port on the host's address, or on all addresses of the
// families that the workload has. It returns which port that is.
func bindAll(host netip.Addr, n uint16, protocol string, addrs []netip.Addr) (fs []*os.File, got uint16, err error) {
	targets := []netip.Addr{host}
	if !host.IsValid() {
		targets = nil
		for _, a := range addrs {
			if a.Is4() {
				targets = append(targets, netip.IPv4Unspecified())
			} else {
				targets = append(targets, netip.IPv6Unspecified())
			}
		}
	}
	got = n
	for _, t := range targets {
		f, bound, err := bind(t, got, protocol)
		if err != nil {
			closeAll(fs)
			return nil, 0, err
		}
		got, fs = bound, append(fs, f)
	}
	return fs, got, nil
}

// refuseAll is the BPF program that drops every packet: a UDP socket that nobody
// reads would fill up.
var refuseAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}

func bind(a netip.Addr, n uint16, protocol string) (*os.File, uint16, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if a.Is6() {
		family = unix.AF_INET6
	}
	if protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("%s port %d", protocol, n))
	fail := func(call string, err error) (*os.File, uint16, error) {
		f.Close()
		return nil, 0, os.NewSyscallError(call, err)
	}
	if a.Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fail("setsockopt(IPV6_V6ONLY)", err)
		}
	}
	if kind == unix.SOCK_DGRAM {
		prog := unix.SockFprog{Len: uint16(len(refuseAll)), Filter: &refuseAll[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
			return fail("setsockopt(SO_ATTACH_FILTER)", err)
		}
	}
	// Without SO_REUSEADDR, which two sockets that do not listen could share a port
	// by.
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(n), Addr: as4(a)}
	if a.Is6() {
		to = &unix.SockaddrInet6{Port: int(n), Addr: a.As16()}
	}
	if err := unix.Bind(fd, to); err != nil {
		return fail("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fail("getsockname", err)
	}
	switch sa := name.(type) {
	case *unix.SockaddrInet4:
		n = uint16(sa.Port)
	case *unix.SockaddrInet6:
		n = uint16(sa.Port)
	}
	return f, n, nil
}

func as4(a netip.Addr) (b [4]byte) {
	if a.Is4() {
		b = a.As4()
	}
	return b
}

func closeAll(fs []*os.File) {
	for _, f := range fs {
		f.Close()
	}
}
