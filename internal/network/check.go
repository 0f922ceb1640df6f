package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// Any4 and Any6, as the Prefix of a Subnet that is asked for, leave the choice.
var (
	Any4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	Any6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// reserved names mean something else as values of --network.
var reserved = []string{"none", "host", "user", "default", "container"}

// CheckName reports what is wrong with a network's name: it is like that of a
// workload, and none of those that --network takes for something else.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 128
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alnum || i > 0 && strings.IndexByte("_.-", c) >= 0)
	}
	if !ok {
		return Invalidf("name %q: want at most 128 letters, digits, \"_\", \".\" and \"-\", the first a letter or digit", name)
	}
	for _, r := range reserved {
		if name == r {
			return Invalidf("the name %q means something else", name)
		}
	}
	return nil
}

// The sizes of subnets that can be asked for, in bits. The least has room for a
// gateway and one workload.
const (
	minBits4, maxBits4 = 8, 30
	minBits6, maxBits6 = 16, 126
)

// Check reports what is wrong with a network that is asked for. A Prefix may be
// Any4 or Any6, a Gateway the zero Addr.
func (n Network) Check() error {
	if err := CheckName(n.Name); err != nil {
		return err
	}
	if n.Driver != "" && n.Driver != "bridge" {
		return Invalidf("there is no driver %q: the only one is bridge", n.Driver)
	}
	if n.MTU != 0 && (n.MTU < 1280 || n.MTU > 65535) {
		return Invalidf("MTU %d: want 1280 to 65535 bytes", n.MTU)
	}
	for i, s := range n.Subnets {
		if err := s.check(); err != nil {
			return Invalidf("%v", err)
		}
		for _, o := range n.Subnets[:i] {
			if o.Prefix.Addr().Is4() == s.Prefix.Addr().Is4() {
				return Invalidf("%s and %s are of one family: want at most one subnet of each", o.Prefix, s.Prefix)
			}
		}
	}
	return nil
}

func (s Subnet) check() error {
	p, a := s.Prefix, s.Prefix.Addr()
	if p == Any4 || p == Any6 {
		if s.Gateway.IsValid() || s.Range.IsValid() {
			return fmt.Errorf("a gateway or a range of addresses needs a subnet to be in")
		}
		return nil
	}
	low, high := minBits4, maxBits4
	if a.Is6() {
		low, high = minBits6, maxBits6
	}
	switch {
	case !p.IsValid():
		return fmt.Errorf("the subnet is missing")
	case p != p.Masked():
		return fmt.Errorf("subnet %s has address bits set: did you mean %s?", p, p.Masked())
	case a.Is4In6() || a.Zone() != "":
		return fmt.Errorf("subnet %s is not written as one of its family", p)
	case p.Bits() < low || p.Bits() > high:
		return fmt.Errorf("subnet %s: want /%d to /%d", p, low, high)
	case a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified():
		return fmt.Errorf("subnet %s is set aside for something else", p)
	case a.Is4() && (a.As4()[0] == 0 || a.As4()[0] == 127 || a.As4()[0] >= 224):
		return fmt.Errorf("subnet %s is set aside for something else", p)
	case s.Gateway.IsValid() && !s.Host(s.Gateway):
		return fmt.Errorf("gateway %s is not the address of a host in %s", s.Gateway, p)
	case s.Range.IsValid() && (s.Range != s.Range.Masked() || s.Range.Bits() < p.Bits() || !p.Contains(s.Range.Addr())):
		return fmt.Errorf("range %s is not a part of %s", s.Range, p)
	}
	return nil
}

// Host reports whether a can be the address of a host in the subnet: neither the
// subnet's own nor, of IPv4, that of broadcasts.
func (s Subnet) Host(a netip.Addr) bool {
	return s.Prefix.Contains(a) && a != s.Prefix.Addr() && (a.Is6() || a != Last(s.Prefix))
}

// Nameserver is the address of the network's name server: of IPv4 the last, of
// IPv6 the one that ends in ::53, or the next to it if that is the gateway's. A
// subnet with less than six hosts has none, and returns the zero Addr.
func (s Subnet) Nameserver() netip.Addr {
	if s.Prefix.Addr().Is4() {
		if s.Prefix.Bits() > 29 {
			return netip.Addr{}
		}
		a := Last(s.Prefix).Prev()
		if a == s.Gateway {
			a = a.Prev()
		}
		return a
	}
	if s.Prefix.Bits() > 120 {
		return netip.Addr{}
	}
	b := s.Prefix.Addr().As16()
	b[15] = 0x53
	a := netip.AddrFrom16(b)
	if a == s.Gateway {
		a = a.Next()
	}
	return a
}

// Last is the last address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
