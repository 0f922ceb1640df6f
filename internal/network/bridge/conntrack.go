package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// flows selects by a function.
type flows func(f *netlink.ConntrackFlow) bool

func (match flows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool { return match(f) }

// forgetAddress forgets all flows from and to the address of a workload.
func forgetAddress(a netip.Addr) error { return forgetPrefix(netip.PrefixFrom(a, a.BitLen())) }

// forgetPrefix forgets all flows from and to the addresses of workloads in p.
func forgetPrefix(p netip.Prefix) error {
	err := forget(p.Addr().Is4(), func(f *netlink.ConntrackFlow) bool {
		// To a workload by a published port, the address is in the answers only.
		for _, ip := range [][]byte{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP} {
			if b, ok := netip.AddrFromSlice(ip); ok && p.Contains(b.Unmap()) {
				return true
			}
		}
		return false
	})
	did("flows forgotten")
	return err
}

// forgetPorts forgets the flows of datagrams to ports of the host, and of no other
// machine: whoever asks one at the same port, such as a name server, awaits an answer.
func forgetPorts(ports []workload.Port) error {
	udp := map[uint16]bool{}
	for _, p := range ports {
		if p.Protocol == "udp" {
			udp[p.HostPort] = true
		}
	}
	if len(udp) == 0 {
		return nil
	}
	here, err := hostsOwn()
	if err != nil {
		return err
	}
	match := func(f *netlink.ConntrackFlow) bool {
		to, ok := netip.AddrFromSlice(f.Forward.DstIP)
		return ok && f.Forward.Protocol == unix.IPPROTO_UDP && udp[f.Forward.DstPort] &&
			slices.ContainsFunc(here, func(p netip.Prefix) bool { return p.Contains(to.Unmap()) })
	}
	return errors.Join(forget(true, match), forget(false, match))
}

// hostsOwn returns what the machine takes for addresses of its own, as the rules of
// published ports do: see toHost.
func hostsOwn() (out []netip.Prefix, err error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, _, err := dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		})
		if err != nil {
			return nil, fmt.Errorf("look at the host's addresses: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil {
				out = append(out, prefixOf(*r.Dst))
			}
		}
	}
	return out, nil
}

func forget(ipv4 bool, match flows) error {
	// A dump goes through the whole table of the kernel, also where it is empty.
	if b, err := os.ReadFile(sysctls + "/netfilter/nf_conntrack_count"); err == nil && string(bytes.TrimSpace(b)) == "0" {
		return nil
	}
	family := netlink.InetFamily(unix.AF_INET)
	if !ipv4 {
		family = unix.AF_INET6
	}
	// The flows are listed for that, and those of a list that was interrupted are forgotten, too.
	_, _, err := dump(func() ([]netlink.ConntrackFlow, error) {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, match)
		return nil, err
	})
	if err != nil {
		return fmt.Errorf("forget flows of connection tracking: %w", unsupported(err, "netlink interface to connection tracking"))
	}
	return nil
}
