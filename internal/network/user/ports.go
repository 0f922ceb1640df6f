package user

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// choosePorts fills in host ports that were left open, and makes sure that the
// others can be had, so that the error names the port. The programs know one target
// for each port of the host, whatever address it is published on, so no two ports
// get the same one. last is what the workload had when it ran before.
func choosePorts(ports, last []workload.Port, f families) ([]workload.Port, error) {
	if len(ports) > maxPorts {
		return nil, fmt.Errorf("%w: %d published ports in the user network, in which there are at most %d", workload.ErrUnsupported, len(ports), maxPorts)
	}
	c := choice{last: last, taken: map[hostPort]uint16{}}
	defer c.letGo()
	out := slices.Clone(ports)
	for _, open := range []bool{false, true} { // these get none that another asks for
		for i := range out {
			p := &out[i]
			if (ports[i].HostPort == 0) != open {
				continue
			}
			if p.HostIP.IsValid() && (p.HostIP.Unmap().Is4() && !f.v4 || p.HostIP.Is6() && !f.v6) {
				return nil, fmt.Errorf("%w: port %d at %s, whose family the host has no way out by", workload.ErrUnsupported, p.Port, p.HostIP)
			}
			if err := c.settle(p); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// maxPorts is how many a workload can publish: each is an argument and a socket or
// two of its process.
const maxPorts = 1024

// choice is one of host ports that is under way.
type choice struct {
	last  []workload.Port
	taken map[hostPort]uint16 // the workload's port that each leads to
	// held are sockets that keep the kernel from giving a port twice, and others from
	// taking it before all are chosen.
	held []io.Closer
}

type hostPort struct {
	protocol string
	number   uint16
}

// letGo leaves the ports to the process that will bind them.
func (c *choice) letGo() {
	for _, h := range c.held {
		h.Close()
	}
}

// settle chooses the host's port of p: that of the last time, or the first that is
// free of those that will do.
func (c *choice) settle(p *workload.Port) error {
	first, end := p.HostPort, max(p.HostPort, p.HostPortEnd)
	p.HostPortEnd = 0
	candidates := []uint16{}
	if l := before(c.last, *p, first, end); l != 0 {
		candidates = append(candidates, l)
	}
	for n := int(first); n <= int(end); n++ {
		candidates = append(candidates, uint16(n))
	}
	if first == 0 { // at another address the kernel may choose one of those taken
		candidates = append(candidates, make([]uint16, len(c.taken))...)
	}
	var err error
	for _, n := range candidates {
		if err = c.take(p, n); err == nil {
			return nil
		}
	}
	return err
}

// take gives p a port of the host, 0 for any.
func (c *choice) take(p *workload.Port, n uint16) error {
	q := *p
	q.HostPort = n
	if err := c.free(q); err != nil {
		return err
	}
	held, got, err := bind(q)
	if err != nil {
		return err
	}
	c.held = append(c.held, held)
	q.HostPort = got
	if err := c.free(q); err != nil {
		return err
	}
	c.taken[hostPort{q.Protocol, got}] = q.Port
	*p = q
	return nil
}

// free returns an error if another port of the workload has the host's port of p.
func (c *choice) free(p workload.Port) error {
	to, ok := c.taken[hostPort{p.Protocol, p.HostPort}]
	if !ok {
		return nil
	}
	return fmt.Errorf("%w: %d/%s leads to port %d of the workload, and in the user network a port leads to one, at whatever address of the host",
		network.ErrPortTaken, p.HostPort, p.Protocol, to)
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

// bind binds a port and returns which that is; to close held is to let go of it.
func bind(p workload.Port) (held io.Closer, got uint16, err error) {
	host := ""
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(p.HostPort)))
	var bound net.Addr
	if p.Protocol == "udp" {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", address); err == nil {
			held, bound = c, c.LocalAddr()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			held, bound = l, l.Addr()
		}
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, 0, fmt.Errorf("%w: %s/%s", network.ErrPortTaken, address, p.Protocol)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("publish port %d/%s: %w", p.Port, p.Protocol, err)
	}
	a, err := netip.ParseAddrPort(bound.String())
	if err != nil {
		held.Close()
		return nil, 0, err
	}
	return held, a.Port(), nil
}
