package bridge

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// How the names of the host's interfaces begin.
const workloadLinks, serverLinks = "bhw", "bhd"

// linkName names a workload's interface of the host by what it belongs to, so
// that whoever finds it knows without a record, and a second attempt meets the
// first one's leftovers.
func linkName(id workload.ID, networkID string) string {
	sum := sha256.Sum256([]byte(string(id) + networkID))
	return workloadLinks + hex.EncodeToString(sum[:6])
}

// serverLink is the name server's.
func serverLink(networkID string) string { return serverLinks + networkID[:12] }

// isPort reports whether the name is one of ours for a bridge's port.
func isPort(name string) bool {
	return strings.HasPrefix(name, workloadLinks) || strings.HasPrefix(name, serverLinks)
}

// linkMAC is an address for an interface of the host, the same each time.
func linkMAC(name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(name))
	return append(net.HardwareAddr{0x02}, sum[:5]...) // locally administered
}

// linkGroup is the group of interfaces (ip-link(8)) that those of a state root are
// in: the bridges, and each port of theirs from before it is one. By it a port is
// known as ours when no set names it. Others number theirs from 0.
func linkGroup(tableName string) uint32 {
	sum := sha256.Sum256([]byte(tableName))
	return 1<<30 | binary.BigEndian.Uint32(sum[:])>>2 // an int in the kernel
}

// makeBridge makes sure that the network's bridge exists, is in the group and has
// the gateways' addresses, and leaves it to the caller to bring it up.
func makeBridge(n *network.Network, group uint32) (netlink.Link, error) {
	fail := func(err error) (netlink.Link, error) {
		return nil, fmt.Errorf("make the bridge of network %q: %w", n.Name, err)
	}
	forward := groupForward
	l, err := netlink.LinkByName(n.Bridge)
	if isNotFound(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr, attrs.MTU, attrs.Group = n.Bridge, linkMAC(n.Bridge), mtu(n), group
		// Without an address of its own a bridge takes that of a port, which comes
		// and goes.
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, GroupFwdMask: &forward}); err != nil {
			return fail(unsupported(err, "the bridge driver"))
		}
		did("bridge made")
		l, err = netlink.LinkByName(n.Bridge)
	}
	if err != nil {
		return fail(err)
	}
	if l.Type() != "bridge" {
		return fail(fmt.Errorf("interface %s is there and is none", n.Bridge))
	}
	if b, ok := l.(*netlink.Bridge); !ok || b.GroupFwdMask == nil || *b.GroupFwdMask != forward {
		b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: n.Bridge, Index: l.Attrs().Index}, GroupFwdMask: &forward}
		if err := netlink.LinkModify(b); err != nil {
			return fail(fmt.Errorf("have it forward groups of bridges: %w", err))
		}
	}
	if err := regroup(l, group); err != nil {
		return fail(err)
	}
	if err := bridgeSettings(n); err != nil {
		return fail(err)
	}
	if err := dropOthers(l, n); err != nil { // first: with one go those that came after it in its subnet
		return fail(err)
	}
	for _, sub := range n.Subnets {
		a := &netlink.Addr{IPNet: ipNet(prefixAt(sub.Gateway, sub.Prefix)), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrReplace(l, a); err != nil {
			return fail(fmt.Errorf("give it address %s: %w", a.IPNet, err))
		}
	}
	did("bridge has addresses")
	return l, nil
}

// dropOthers takes the addresses of other subnets from a network's bridge: its own may
// have given way to another since they were set, see stillFree.
func dropOthers(bridge netlink.Link, n *network.Network) error {
	all, _, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(bridge, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list its addresses: %w", err)
	}
	for _, a := range all {
		own := slices.ContainsFunc(n.Subnets, func(sub network.Subnet) bool {
			return a.IPNet.String() == prefixAt(sub.Gateway, sub.Prefix).String()
		})
		if own || a.IP.IsLinkLocalUnicast() {
			continue
		}
		if err := netlink.AddrDel(bridge, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take address %s from it: %w", a.IPNet, err)
		}
	}
	return nil
}

// regroup puts a bridge that is not in the group there, after those of its ports that
// are ours: an engine that knew of no group may have made them.
func regroup(bridge netlink.Link, group uint32) error {
	b := bridge.Attrs()
	if b.Group == group {
		return nil
	}
	all, whole, err := dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range all {
		if a := l.Attrs(); a.MasterIndex != b.Index || a.Group == group || !isPort(a.Name) {
			continue
		}
		if err := netlink.LinkSetGroup(l, int(group)); err != nil && !isGone(err) {
			return fmt.Errorf("set the group of its port %s: %w", l.Attrs().Name, err)
		}
	}
	if !whole {
		return nil // a port may be missing: the next start looks again
	}
	if err := netlink.LinkSetGroup(bridge, int(group)); err != nil {
		return fmt.Errorf("set its group: %w", err)
	}
	return nil
}

// ready reports whether the bridge is there and up, at the price of one request.
func ready(n *network.Network) (netlink.Link, bool) {
	l, err := netlink.LinkByName(n.Bridge)
	return l, err == nil && l.Attrs().Flags&net.FlagUp != 0
}

func mtu(n *network.Network) int {
	if n.MTU != 0 {
		return n.MTU
	}
	return defaultMTU
}

func isNotFound(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none)
}

// unsupported names what the kernel lacks, where that is what err says.
func unsupported(err error, what string) error {
	for _, e := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENODEV} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: the kernel has no %s, and networks need it; --network none does without: %w", workload.ErrUnsupported, what, err)
		}
	}
	return err
}

// deleteLink removes an interface; that there is none is no error.
func deleteLink(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = dropLink(l)
	}
	if err == nil || isGone(err) {
		return nil
	}
	return fmt.Errorf("remove interface %s: %w", name, err)
}

func isGone(err error) bool { return isNotFound(err) || errors.Is(err, unix.ENODEV) }

// dropLink removes an interface and returns when it is gone: it is in no bridge and
// no list, and its name is free. The kernel answers 10 to 30 ms after that, when no
// processor can use the memory any more (rcu_barrier in netdev_run_todo); only the
// thread that asked waits for it, and the end of the process.
func dropLink(l netlink.Link) error {
	answer := make(chan error, 1)
	go func() { answer <- netlink.LinkDel(l) }()
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 5*time.Millisecond) {
		select {
		case err := <-answer:
			return err
		case <-time.After(pause):
		}
		// This waits for whoever changes interfaces, and so sees all of it or nothing.
		if _, err := netlink.LinkByIndex(l.Attrs().Index); err != nil && isGone(err) {
			return nil
		}
	}
}

// makeTap makes a tap device on a bridge and returns its descriptor, with which
// it ends.
func makeTap(bridge netlink.Link, nic workload.NIC, owner, group uint32) (*os.File, error) {
	fail := func(f *os.File, err error) (*os.File, error) {
		if f != nil {
			f.Close()
		}
		return nil, fmt.Errorf("make tap device %s: %w", nic.Link, err)
	}
	// Not os.OpenFile, which would poll the device before it is one.
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		err = &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w: %w", workload.ErrUnsupported, err)
		}
		return fail(nil, unsupported(err, "tun/tap driver"))
	}
	f := os.NewFile(uintptr(fd), "/dev/net/tun")
	req, err := unix.NewIfreq(nic.Link)
	if err != nil {
		return fail(f, err)
	}
	// Without IFF_VNET_HDR: by the header before its frames a guest names 16 bits of each
	// that get a checksum where the frame leaves, after the rules have seen it. They
	// could be half of an address.
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, req); err != nil {
		return fail(f, os.NewSyscallError("ioctl(TUNSETIFF)", err))
	}
	did("tap made")
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETOWNER, int(owner)); err != nil {
		return fail(f, os.NewSyscallError("ioctl(TUNSETOWNER)", err))
	}
	l, err := netlink.LinkByName(nic.Link)
	if err != nil {
		return fail(f, err)
	}
	// The host's end has a MAC address of its own: the guest's is the guest's.
	if err := netlink.LinkSetHardwareAddr(l, linkMAC(nic.Link)); err != nil {
		return fail(f, err)
	}
	if err := netlink.LinkSetMTU(l, nic.MTU); err != nil {
		return fail(f, err)
	}
	if err := join(l, bridge, group); err != nil {
		return fail(f, err)
	}
	return f, nil
}

// join makes an interface a port of the bridge, in the group. The host itself never
// uses it as one of its own, so it gets no IPv6 address.
func join(l, bridge netlink.Link, group uint32) error {
	if err := noIPv6(l.Attrs().Name); err != nil {
		return err
	}
	if err := netlink.LinkSetGroup(l, int(group)); err != nil {
		return err
	}
	if err := netlink.LinkSetMasterByIndex(l, bridge.Attrs().Index); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// orphans removes the ports of our bridges whose names keep does not have.
func orphans(bridges map[int]bool, keep map[string]bool) error {
	all, _, err := dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range all {
		a := l.Attrs()
		if isPort(a.Name) && bridges[a.MasterIndex] && !keep[a.Name] {
			errs = append(errs, deleteLink(a.Name))
		}
	}
	return errors.Join(errs...)
}
