package bridge

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// What a network and a lease are in our tables: pure functions, so that adding,
// removing and making anew never disagree.

func networkElements(n *network.Network) []element {
	link := name(n.Bridge)
	es := []element{{setBridges, link, nil}, {setPairs, join2(link, link), nil}}
	if n.Internal {
		es = append(es, element{setInternal, link, nil})
	}
	// The name server is a port like others.
	if addrs := nameservers(n); len(addrs) > 0 {
		es = append(es, portElements(serverLink(n.ID), serverMAC(n.ID), addrs)...)
	}
	return es
}

func nameservers(n *network.Network) (addrs []netip.Addr) {
	for _, sub := range n.Subnets {
		if a := sub.Nameserver(); a.IsValid() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// serverMAC is that of the name server's own end.
func serverMAC(networkID string) net.HardwareAddr { return linkMAC(serverLink(networkID) + "-peer") }

func leaseElements(l network.Lease) []element {
	mac, err := net.ParseMAC(l.NIC.MAC)
	if err != nil {
		return nil // it can send nothing
	}
	var addrs []netip.Addr
	for _, p := range l.NIC.Addresses {
		addrs = append(addrs, p.Addr())
	}
	es := portElements(l.NIC.Link, mac, addrs)
	for _, p := range l.Ports {
		es = append(es, publishedElements(p, addrs)...)
	}
	return es
}

// portElements are who may send what as himself.
func portElements(link string, mac net.HardwareAddr, addrs []netip.Addr) []element {
	l := name(link)
	es := []element{{setPorts, l, nil}, {setMACs, join2(l, pad(mac)), nil}}
	six := false
	for _, a := range addrs {
		if a.Is4() {
			es = append(es, element{setIP4, join2(l, a.AsSlice()), nil})
			continue
		}
		es = append(es, element{setIP6, join2(l, a.AsSlice()), nil})
		six = true
	}
	if six {
		es = append(es, element{setIP6, join2(l, linkLocal(mac).AsSlice()), nil})
	}
	return es
}

// linkLocal is the address that an interface gives itself (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	b := [16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
	return netip.AddrFrom16(b)
}

func publishedElements(p workload.Port, addrs []netip.Addr) (es []element) {
	proto := protocol(p.Protocol)
	for _, a := range addrs {
		if p.HostIP.IsValid() && p.HostIP.Is4() != a.Is4() {
			continue
		}
		anySet, addrSet, open := mapAny4, mapAddr4, setOpen4
		if a.Is6() {
			anySet, addrSet, open = mapAny6, mapAddr6, setOpen6
		}
		key, to := join2(pad(proto), pad(port(p.HostPort))), join2(a.AsSlice(), pad(port(p.Port)))
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			es = append(es, element{addrSet, join2(p.HostIP.AsSlice(), key), to})
		} else {
			es = append(es, element{anySet, key, to})
		}
		es = append(es, element{open, join2(a.AsSlice(), join2(pad(proto), pad(port(p.Port)))), nil})
	}
	return es
}

func protocol(name string) []byte {
	if name == "udp" {
		return []byte{unix.IPPROTO_UDP}
	}
	return []byte{unix.IPPROTO_TCP}
}

// join2 concatenates; the parts of a key each fill whole 32-bit registers, see pad.
func join2(a, b []byte) []byte { return append(append([]byte{}, a...), b...) }

func pad(b []byte) []byte { return append(append([]byte{}, b...), make([]byte, (4-len(b)%4)%4)...) }

func guardElements(g guard) (es []element) {
	for _, l := range g.IPv4 {
		es = append(es, element{setGuarded4, name(l), nil})
	}
	for _, l := range g.IPv6 {
		es = append(es, element{setGuarded6, name(l), nil})
	}
	return es
}
