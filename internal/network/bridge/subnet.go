package bridge

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
)

// pools are where IPv4 subnets come from that nobody asked for, each divided into
// subnets of autoBits. They are private addresses (RFC 1918), taken from the end
// at which other engines begin last.
var pools = []netip.Prefix{
	netip.MustParsePrefix("172.30.0.0/15"), netip.MustParsePrefix("172.28.0.0/15"),
	netip.MustParsePrefix("172.26.0.0/15"), netip.MustParsePrefix("172.24.0.0/15"),
	netip.MustParsePrefix("10.208.0.0/12"), netip.MustParsePrefix("192.168.128.0/17"),
}

// autoBits is room for 4093 workloads.
const autoBits = 20

// haveIPv6 reports whether the kernel has IPv6, and uses it.
func haveIPv6() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && strings.TrimSpace(string(b)) == "0"
}

// claim is a prefix in use, and by whom.
type claim struct {
	prefix netip.Prefix
	by     string
}

// choose fills in the subnets and gateways of n that were left open, and refuses
// those that are in use by one of the networks or by the host.
func choose(n *network.Network, networks map[string]network.Network) error {
	var taken []claim
	for _, o := range networks {
		if o.ID != n.ID {
			for _, sub := range o.Subnets {
				taken = append(taken, claim{sub.Prefix, fmt.Sprintf("network %q", o.Name)})
			}
		}
	}
	host, err := hostClaims(n.Bridge)
	if err != nil {
		return err
	}
	taken = append(taken, host...)
	for i := range n.Subnets {
		sub := &n.Subnets[i]
		if sub.Prefix.Addr().Is6() && !haveIPv6() {
			return network.Invalidf("IPv6 is off on this host (net.ipv6.conf.all.disable_ipv6)")
		}
		switch {
		case sub.Prefix == network.Any4:
			if sub.Prefix, err = freeIPv4(taken); err != nil {
				return err
			}
			sub.Auto = true
		case sub.Prefix == network.Any6:
			sub.Prefix, sub.Auto = uniqueLocal(), true
		default:
			if c, ok := overlap(sub.Prefix, taken); ok {
				return fmt.Errorf("%w: %s overlaps with %s of %s", network.ErrOverlap, sub.Prefix, c.prefix, c.by)
			}
		}
		if !sub.Gateway.IsValid() {
			sub.Gateway = sub.Prefix.Addr().Next()
		}
	}
	return nil
}

func overlap(p netip.Prefix, taken []claim) (claim, bool) {
	for _, c := range taken {
		if p.Overlaps(c.prefix) {
			return c, true
		}
	}
	return claim{}, false
}

// freeIPv4 returns the first subnet of the pools that overlaps with nothing.
func freeIPv4(taken []claim) (netip.Prefix, error) {
	for _, pool := range pools {
		for p := netip.PrefixFrom(pool.Addr(), autoBits); pool.Contains(p.Addr()); p = netip.PrefixFrom(network.Last(p).Next(), autoBits) {
			if _, ok := overlap(p, taken); !ok {
				return p, nil
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("%w: every subnet that networks are made from is in use; choose one with --subnet", network.ErrExhausted)
}

// uniqueLocal returns a random prefix of RFC 4193: fd, 40 bits for the site and 16
// for the subnet, which are all random here.
func uniqueLocal() netip.Prefix {
	b := [16]byte{0: 0xfd}
	rand.Read(b[1:8])
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// minRoute are the shortest prefixes that count as a network of the host's. What
// is shorter is a way to everywhere else, such as a default route or its halves.
const minRoute4, minRoute6 = 8, 16

// hostClaims returns what the host has routes and addresses for, except on the
// interface but.
func hostClaims(but string) ([]claim, error) {
	fail := func(err error) ([]claim, error) { return nil, fmt.Errorf("look at the host's routes: %w", err) }
	links := map[int]string{}
	all, _, err := dump(netlink.LinkList)
	if err != nil {
		return fail(err)
	}
	for _, l := range all {
		links[l.Attrs().Index] = l.Attrs().Name
	}
	var claims []claim
	add := func(p netip.Prefix, link int) {
		p = p.Masked()
		short := minRoute4
		if p.Addr().Is6() {
			short = minRoute6
		}
		if p.IsValid() && p.Bits() >= short && links[link] != but && !p.Addr().IsMulticast() && !p.Addr().IsLinkLocalUnicast() {
			by := "a route of the host"
			if links[link] != "" {
				by = "the host's interface " + links[link]
			}
			claims = append(claims, claim{p, by})
		}
	}
	// Table 0 is every table.
	routes, _, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fail(err)
	}
	for _, r := range routes {
		if r.Dst != nil {
			add(prefixOf(*r.Dst), r.LinkIndex)
		}
	}
	addrs, _, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fail(err)
	}
	for _, a := range addrs {
		add(prefixOf(*a.IPNet), a.LinkIndex)
	}
	return claims, nil
}
