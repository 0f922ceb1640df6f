package rtnl

import (
	"errors"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// sysctls are the parameters of the calling thread's network namespace.
const sysctls = "/proc/sys/net/"

// Configure makes an interface of the calling thread's network namespace work:
// it gets its addresses, is switched on, and what has no other way goes to the
// gateways.
//
// Neighbours are told of the addresses, so that whoever had one before is
// forgotten. Without an IPv6 address the interface has no IPv6 at all; with one
// it takes no address or route from whoever announces some, and its link-local
// address is good at once.
func (c *Conn) Configure(l Link, addresses []netip.Prefix, gateways []netip.Addr) error {
	if err := settle(l.Name, addresses); err != nil {
		return err
	}
	for _, p := range addresses {
		if err := c.AddAddress(l.Index, p); err != nil {
			return err
		}
	}
	if err := c.SetLink(l.Index, Change{State: Up}); err != nil {
		return err
	}
	for _, g := range gateways {
		if err := c.AddDefaultRoute(l.Index, g); err != nil {
			return err
		}
	}
	return nil
}

// settle says what the kernel does with an interface by itself; see ip-sysctl of
// the kernel's documentation.
func settle(name string, addresses []netip.Prefix) error {
	if err := os.WriteFile(sysctls+"ipv4/conf/"+name+"/arp_notify", []byte("1"), 0); err != nil {
		return err
	}
	ipv6 := sysctls + "ipv6/conf/" + name + "/"
	if !slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return !p.Addr().Is4() }) {
		if err := os.WriteFile(ipv6+"disable_ipv6", []byte("1"), 0); !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil // a kernel without IPv6
	}
	for _, s := range [][2]string{{"disable_ipv6", "0"}, {"accept_ra", "0"}, {"autoconf", "0"}, {"accept_dad", "0"}, {"ndisc_notify", "1"}} {
		if err := os.WriteFile(ipv6+s[0], []byte(s[1]), 0); err != nil {
			return err
		}
	}
	return nil
}
