package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"

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

// forgetPorts forgets the flows of datagrams to ports of the host.
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
	match := func(f *netlink.ConntrackFlow) bool {
		return f.Forward.Protocol == unix.IPPROTO_UDP && udp[f.Forward.DstPort]
	}
	return errors.Join(forget(true, match), forget(false, match))
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
	for range 3 { // a dump that was interrupted may have missed one
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, match)
		if err == nil {
			return nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("forget flows of connection tracking: %w", unsupported(err, "netlink interface to connection tracking"))
		}
	}
	return nil
}
