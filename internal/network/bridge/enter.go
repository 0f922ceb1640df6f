package bridge

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Enter makes the interfaces in the workload's network namespace and configures
// them: names, addresses, routes, and loopback. After it everything works. With taps
// there is no namespace, and netns is nil: what is left is to wait.
func (a *Attached) Enter(ctx context.Context, netns *os.File) error {
	if netns == nil {
		return a.wait(ctx)
	}
	for i, nic := range a.fresh {
		if err := ctx.Err(); err != nil {
			return err
		}
		mac, err := net.ParseMAC(nic.MAC)
		if err != nil {
			return fmt.Errorf("make interface %s: %w", nic.Name, err)
		}
		making := trace.Step(ctx, "interfaces made")
		err = makeVeth(a.bridges[i], nic.Link, nic.Name, mac, nic.MTU, netns, a.group)
		making.End()
		if err != nil {
			return fmt.Errorf("make interface %s: %w", nic.Name, err)
		}
	}
	configuring := trace.Step(ctx, "addresses and routes set")
	err := configureIn(netns, a.fresh, a.raw)
	configuring.End()
	if err != nil {
		return fmt.Errorf("configure the workload's network: %w", err)
	}
	did("namespace configured")
	return a.wait(ctx)
}

// makeVeth makes a pair of interfaces: link, a port of the bridge and in the group,
// and peer in the other namespace. It is born there, as moving it would take another few
// milliseconds.
func makeVeth(bridge, link, peer string, mac net.HardwareAddr, mtu int, netns *os.File, group uint32) error {
	if err := deleteLink(link); err != nil { // of an attempt before
		return err
	}
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = link, mtu, linkMAC(link)
	attrs.MasterIndex, attrs.Group = br.Attrs().Index, group
	v := &netlink.Veth{
		LinkAttrs: attrs, PeerName: peer, PeerHardwareAddr: mac, PeerMTU: uint32(mtu),
		PeerNamespace: netlink.NsFd(int(netns.Fd())),
	}
	if err := netlink.LinkAdd(v); err != nil {
		return unsupported(err, "veth driver")
	}
	did("interface made")
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	if err := noIPv6(link); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// inside calls f on a thread that is in another network namespace: its /proc/sys/net
// is that namespace's, and so is a netlink socket that it opens.
func inside(netns *os.File, f func() error) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("setns", err)
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return os.NewSyscallError("setns", back) // the thread stays locked, and ends with the goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// configureIn configures interfaces that are in a namespace, and loopback there. raw
// is for a workload that has raw sockets, see finish.
func configureIn(netns *os.File, nics []workload.NIC, raw bool) error {
	return inside(netns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return configure(h, nics, raw)
	})
}

// configure sets up the namespace that the calling thread and h are in.
func configure(h *netlink.Handle, nics []workload.NIC, raw bool) error {
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	for _, nic := range nics {
		if err := configureOne(h, nic, raw); err != nil {
			return fmt.Errorf("interface %s: %w", nic.Name, err)
		}
	}
	return nil
}

func configureOne(h *netlink.Handle, nic workload.NIC, raw bool) error {
	l, err := h.LinkByName(nic.Name)
	if err != nil {
		return err
	}
	if raw { // before it is up, and can send
		if err := finish(l); err != nil {
			return err
		}
	}
	if err := ipv6Inside(nic); err != nil {
		return err
	}
	for _, p := range nic.Addresses {
		// The address is this one's alone: nobody need be asked whether he has it.
		if err := h.AddrAdd(l, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("address %s: %w", p, err)
		}
	}
	if err := h.LinkSetUp(l); err != nil {
		return err
	}
	return defaultRoutes(h, l, nic)
}

// defaultRoutes adds the routes by an interface that is up.
func defaultRoutes(h *netlink.Handle, l netlink.Link, nic workload.NIC) error {
	for _, g := range nic.Gateways {
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: g.AsSlice()}
		if err := h.RouteReplace(r); err != nil {
			return fmt.Errorf("route by %s: %w", g, err)
		}
	}
	return nil
}

// ipv6Inside sets what an interface does by itself: it takes no address or route
// from advertisements, and its link-local address is good at once; or it has no
// IPv6 at all.
func ipv6Inside(nic workload.NIC) error {
	if _, err := os.Stat(sysctls + "/ipv6/conf/" + nic.Name); err != nil {
		return nil // the kernel has none
	}
	for _, p := range nic.Addresses {
		if p.Addr().Is4() {
			continue
		}
		if err := set("0", "ipv6", "conf", nic.Name, "disable_ipv6"); err != nil {
			return err
		}
		for _, key := range []string{"accept_ra", "autoconf", "accept_dad"} {
			if err := set("0", "ipv6", "conf", nic.Name, key); err != nil {
				return err
			}
		}
		return nil
	}
	return set("1", "ipv6", "conf", nic.Name, "disable_ipv6")
}
