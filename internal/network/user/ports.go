package user

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// choosePorts fills in host ports that were left open, and makes sure that the
// others can be had, so that the error names the port. last is what the workload
// had when it ran before.
func choosePorts(ports, last []workload.Port, f families) ([]workload.Port, error) {
	if len(ports) > maxPorts {
		return nil, fmt.Errorf("%w: %d published ports in the user network, in which there are at most %d", workload.ErrUnsupported, len(ports), maxPorts)
	}
	out := slices.Clone(ports)
	for i := range out {
		p := &out[i]
		if p.HostIP.IsValid() && (p.HostIP.Unmap().Is4() && !f.v4 || p.HostIP.Is6() && !f.v6) {
			return nil, fmt.Errorf("%w: port %d at %s, whose family the host has no way out by", workload.ErrUnsupported, p.Port, p.HostIP)
		}
		if err := settle(p, last, out[:i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// maxPorts is how many a workload can publish: each is an argument and a socket or
// two of its process.
const maxPorts = 1024

// settle chooses the host's port of p: that of the last time, or the first that is
// free of those that will do.
func settle(p *workload.Port, last, taken []workload.Port) error {
	first, end := p.HostPort, max(p.HostPort, p.HostPortEnd)
	p.HostPortEnd = 0
	candidates := []uint16{}
	if l := before(last, *p, first, end); l != 0 {
		candidates = append(candidates, l)
	}
	for n := int(first); n <= int(end); n++ {
		candidates = append(candidates, uint16(n))
	}
	var err error
	for _, c := range candidates {
		q := *p
		q.HostPort = c
		if slices.ContainsFunc(taken, func(t workload.Port) bool { return t.HostPort == c && t.Protocol == p.Protocol && t.HostIP == p.HostIP }) {
			err = fmt.Errorf("%w: %d/%s", network.ErrPortTaken, c, p.Protocol)
			continue
		}
		var got uint16
		if got, err = try(q); err == nil {
			p.HostPort = got
			return nil
		}
	}
	return err
}

// before is the host's port of the last time, 0 if it will not do.
func before(last []workload.Port, p workload.Port, first, end uint16) uint16 {
	for _, l := range last {
		if l.Port == p.Port && l.Protocol == p.Protocol && l.HostIP == p.HostIP && (first == 0 || l.HostPort >= first && l.HostPort <= end) {
			return l.HostPort
		}
	}
	return 0
}

// try binds a port, and lets go of it for the process that will.
func try(p workload.Port) (uint16, error) {
	host := ""
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(p.HostPort)))
	var bound net.Addr
	var err error
	if p.Protocol == "udp" {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", address); err == nil {
			bound = c.LocalAddr()
			c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			bound = l.Addr()
			l.Close()
		}
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return 0, fmt.Errorf("%w: %s/%s", network.ErrPortTaken, address, p.Protocol)
	}
	if err != nil {
		return 0, fmt.Errorf("publish port %d/%s: %w", p.Port, p.Protocol, err)
	}
	a, err := netip.ParseAddrPort(bound.String())
	return a.Port(), err
}
