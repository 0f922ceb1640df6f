package bridge

import (
	"net"
	"net/netip"
)

// Package netlink has the addresses of package net; everything else here those of
// netip.

func prefixOf(n net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if bits == 32 {
		a = a.Unmap()
	}
	p, err := a.Prefix(ones)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixAt is an address with the length of a subnet's prefix.
func prefixAt(a netip.Addr, of netip.Prefix) netip.Prefix { return netip.PrefixFrom(a, of.Bits()) }
