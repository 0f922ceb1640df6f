package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// AddAddress gives an interface an address, which is usable at once: nobody is
// asked whether an IPv6 address is taken, as whoever chose it knows. One that is
// there already is no error.
func (c *Conn) AddAddress(index int, p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Zone() != "" {
		return fmt.Errorf("%v is not an address with the length of its prefix", p)
	}
	addr, family := bytesOf(p.Addr())
	b := make([]byte, addressSize)
	b[0], b[1] = family, byte(p.Bits())
	flags := uint32(0)
	if family == unix.AF_INET6 {
		flags = unix.IFA_F_NODAD
	}
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	b = attribute(b, unix.IFA_LOCAL, addr)
	b = attribute(b, unix.IFA_ADDRESS, addr)
	b = attribute(b, unix.IFA_FLAGS, number(flags))
	if family == unix.AF_INET && p.Bits() < 31 {
		b = attribute(b, unix.IFA_BROADCAST, broadcast(p))
	}
	return c.do(fmt.Sprintf("add address %v", p), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b, nil)
}

// AddDefaultRoute sends what has no other way to a gateway. The gateway is
// taken to be on the interface's link, whatever addresses that has.
func (c *Conn) AddDefaultRoute(index int, gateway netip.Addr) error {
	if !gateway.IsValid() {
		return errors.New("a route without a gateway")
	}
	addr, family := bytesOf(gateway.WithZone(""))
	b := make([]byte, routeSize)
	b[0] = family
	b[4] = unix.RT_TABLE_MAIN
	b[5] = unix.RTPROT_STATIC
	b[6] = unix.RT_SCOPE_UNIVERSE
	b[7] = unix.RTN_UNICAST
	binary.NativeEndian.PutUint32(b[8:], unix.RTNH_F_ONLINK)
	b = attribute(b, unix.RTA_GATEWAY, addr)
	b = attribute(b, unix.RTA_OIF, number(uint32(index)))
	return c.do(fmt.Sprintf("add the default route by %v", gateway), unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b, nil)
}

// bytesOf returns an address as messages hold it, and its family.
func bytesOf(a netip.Addr) ([]byte, byte) {
	if a.Is4() {
		b := a.As4()
		return b[:], unix.AF_INET
	}
	b := a.As16()
	return b[:], unix.AF_INET6
}

// broadcast is the last address of an IPv4 subnet.
func broadcast(p netip.Prefix) []byte {
	b := p.Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | (1<<(32-p.Bits()) - 1)
	return binary.BigEndian.AppendUint32(nil, n)
}
