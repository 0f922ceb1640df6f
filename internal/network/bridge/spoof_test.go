package bridge

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// mark is in every frame that the tests send, so that it is known again.
var mark = []byte("bulkhead test frame 3f9c")

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// packetSocket opens a raw socket on a namespace's eth0.
func (n *namespace) packetSocket(link string) (fd int) {
	n.t.Helper()
	n.do(func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: i.Index})
	})
	n.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// sees reports whether the marked frame comes in within a time.
func sees(fd int, want []byte, within time.Duration) bool {
	b := make([]byte, 2048)
	for end := time.Now().Add(within); ; {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil || n == 0 {
			continue
		}
		k, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if bytes.Contains(b[:k], want) {
			return true
		}
	}
}

type frame struct {
	src  net.HardwareAddr
	dst  net.HardwareAddr
	kind uint16
	body []byte
}

func (f frame) bytes() []byte {
	b := append(append([]byte{}, f.dst...), f.src...)
	b = binary.BigEndian.AppendUint16(b, f.kind)
	b = append(b, f.body...)
	if len(b) < 60 {
		b = append(b, make([]byte, 60-len(b))...)
	}
	return b
}

func sum16(parts ...[]byte) uint16 {
	var s uint32
	for _, p := range parts {
		for i := 0; i < len(p); i += 2 {
			v := uint32(p[i]) << 8
			if i+1 < len(p) {
				v |= uint32(p[i+1])
			}
			s += v
		}
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

func udp4(src, dst netip.Addr, sport, dport uint16, payload []byte) []byte {
	u := binary.BigEndian.AppendUint16(nil, sport)
	u = binary.BigEndian.AppendUint16(u, dport)
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(payload)))
	u = append(append(u, 0, 0), payload...)
	h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(u)))
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], sum16(h))
	return append(h, u...)
}

func ip6(src, dst netip.Addr, next byte, payload []byte) []byte {
	h := []byte{0x60, 0, 0, 0, 0, 0, next, 255}
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	return append(append(append(h, src.AsSlice()...), dst.AsSlice()...), payload...)
}

func icmp6(src, dst netip.Addr, kind byte, body []byte) []byte {
	m := append([]byte{kind, 0, 0, 0}, body...)
	pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, 0, 0, byte(len(m)), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(m[2:], sum16(pseudo, m))
	return m
}

func udp6(src, dst netip.Addr, sport uint16, payload []byte) []byte {
	u := binary.BigEndian.AppendUint16(nil, sport)
	u = binary.BigEndian.AppendUint16(u, 9)
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(payload)))
	return ip6(src, dst, 17, append(append(u, 0xff, 0xff), payload...))
}

func arp(op uint16, sha net.HardwareAddr, spa netip.Addr, tha net.HardwareAddr, tpa netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, sha...), spa.AsSlice()...)
	b = append(append(b, tha...), tpa.AsSlice()...)
	return append(b, mark...)
}

// TestSpoofing sends frames of all sorts by a workload's interface, as root in a
// workload can, and looks at what its neighbour and the host get of them. Without
// our rules all of them arrive.
func TestSpoofing(t *testing.T) {
	// Connection tracking would put fragments together on the bridge.
	for _, key := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		was, err := os.ReadFile(filepath.Join(sysctls, "bridge", key))
		if err != nil {
			continue // no br_netfilter
		}
		if err := set("0", "bridge", key); err != nil {
			t.Fatal(err)
		}
		defer set(string(bytes.TrimSpace(was)), "bridge", key) //nolint:errcheck // this namespace ends with the tests
	}
	l := newLab(t)
	evil, victim := l.start(request("bridge")), l.start(request("bridge"))
	own, other := mac(t, evil), mac(t, victim)
	a4, v4, a6, v6 := evil.addr(true), victim.addr(true), evil.addr(false), victim.addr(false)
	gw4, gw6 := evil.a.Host[0], evil.a.Host[1]
	ll, vll := linkLocal(own), linkLocal(other)
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	nodes := netip.MustParseAddr("ff02::1")
	stranger := net.HardwareAddr{2, 9, 9, 9, 9, 9}
	target := func(a netip.Addr, mac net.HardwareAddr) []byte { // an advertisement's body
		b := append([]byte{0x20, 0, 0, 0}, a.AsSlice()...)
		return append(append(b, 2, 1), append(append([]byte{}, mac...), mark...)...)
	}
	ra := append([]byte{64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, mark...)
	vlan := append([]byte{0, 5, 8, 0}, udp4(a4, v4, 5, 6, mark)...)
	hopByHop := func(kind byte, body []byte) []byte { // an extension header before it
		return ip6(ll, nodes, 0, append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, icmp6(ll, nodes, kind, body)...))
	}
	// The fragment with an ICMPv6 message's beginning is not the first one.
	fragment := func(offset uint16, more byte, body []byte) []byte {
		h := binary.BigEndian.AppendUint16([]byte{60, 0}, offset<<3|uint16(more))
		return ip6(ll, nodes, 44, append(append(h, 0, 0, 0, 7), body...))
	}
	// The first fragment of an advertisement ends before the address that it is about.
	// The mark is in an option that says nothing (PadN, RFC 8200).
	short := icmp6(a6, v6, 136, target(gw6, own))[:8]
	padded := append([]byte{44, 3, 1, 28}, append(append([]byte{}, mark...), make([]byte, 28-len(mark))...)...)
	shortFirst := ip6(a6, v6, 0, append(padded, append([]byte{58, 0, 0, 1, 0, 0, 0, 7}, short...)...))
	query := append([]byte{0, 0, 0, 0}, append(make([]byte, 16), mark...)...)
	igmp := append([]byte{0x11, 0, 0, 0, 0, 0, 0, 0}, mark...)
	binary.BigEndian.PutUint16(igmp[2:], sum16(igmp))
	igmpQuery := append(udp4(a4, netip.MustParseAddr("224.0.0.1"), 0, 0, make([]byte, len(igmp)-8))[:20], igmp...)
	igmpQuery[9], igmpQuery[10], igmpQuery[11] = unix.IPPROTO_IGMP, 0, 0
	binary.BigEndian.PutUint16(igmpQuery[10:], sum16(igmpQuery[:20]))
	const ip, ip6Type, arpType = unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP
	to := func(kind uint16, body []byte) frame { return frame{own, other, kind, body} }
	tests := []struct {
		name string
		f    frame
		pass bool
	}{
		{"IPv4", to(ip, udp4(a4, v4, 5, 6, mark)), true},
		{"IPv4, broadcast", frame{own, all, ip, udp4(a4, netip.MustParseAddr("255.255.255.255"), 5, 6, mark)}, true},
		{"IPv4, MAC of nobody", frame{stranger, other, ip, udp4(a4, v4, 5, 6, mark)}, false},
		{"IPv4, MAC of the neighbour", frame{other, all, ip, udp4(a4, v4, 5, 6, mark)}, false},
		{"IPv4, address of nobody", to(ip, udp4(netip.MustParseAddr("8.8.8.8"), v4, 5, 6, mark)), false},
		{"IPv4, address of the gateway", to(ip, udp4(gw4, v4, 5, 6, mark)), false},
		{"IPv4, address of the neighbour", to(ip, udp4(v4, v4, 5, 6, mark)), false},
		{"IPv4, no address", to(ip, udp4(netip.IPv4Unspecified(), v4, 5, 6, mark)), false},
		{"DHCP server", frame{own, all, ip, udp4(a4, netip.MustParseAddr("255.255.255.255"), 67, 68, mark)}, false},
		{"ARP", frame{own, all, arpType, arp(1, own, a4, make([]byte, 6), v4)}, true},
		{"ARP answer", to(arpType, arp(2, own, a4, other, v4)), true},
		{"ARP, address of the gateway", to(arpType, arp(2, own, gw4, other, v4)), false},
		{"ARP, address of the neighbour", frame{own, all, arpType, arp(2, own, v4, all, v4)}, false},
		{"ARP, MAC of another", to(arpType, arp(2, stranger, a4, other, v4)), false},
		{"ARP, of something else", to(arpType, append([]byte{0, 6}, arp(2, own, a4, other, v4)[2:]...)), false},
		{"IPv6", to(ip6Type, udp6(a6, v6, 5, mark)), true},
		{"IPv6, link-local", to(ip6Type, udp6(ll, vll, 5, mark)), true},
		{"IPv6, address of nobody", to(ip6Type, udp6(netip.MustParseAddr("2001:db8::99"), v6, 5, mark)), false},
		{"IPv6, address of the neighbour", to(ip6Type, udp6(v6, v6, 5, mark)), false},
		{"IPv6, link-local of the neighbour", to(ip6Type, udp6(vll, v6, 5, mark)), false},
		{"IPv6, address of the gateway", to(ip6Type, udp6(gw6, v6, 5, mark)), false},
		{"IPv6, no address", to(ip6Type, udp6(netip.IPv6Unspecified(), v6, 5, mark)), false},
		{"DHCPv6 server", to(ip6Type, udp6(ll, v6, 547, mark)), false},
		{"neighbour advertisement", to(ip6Type, ip6(a6, v6, 58, icmp6(a6, v6, 136, target(a6, own)))), true},
		{"neighbour advertisement of another", to(ip6Type, ip6(a6, v6, 58, icmp6(a6, v6, 136, target(gw6, own)))), false},
		{"neighbour advertisement of another, behind a header", frame{own, all, ip6Type, hopByHop(136, target(gw6, own))}, false},
		{"neighbour advertisement, cut off before its target", to(ip6Type, shortFirst), false},
		{"router advertisement", frame{own, all, ip6Type, ip6(ll, nodes, 58, icmp6(ll, nodes, 134, ra))}, false},
		{"router advertisement behind a header", frame{own, all, ip6Type, hopByHop(134, ra)}, false},
		{"router advertisement in the second fragment", frame{own, all, ip6Type, fragment(1, 0, append(icmp6(ll, nodes, 134, ra), 0))}, false},
		{"IPv6 in fragments", to(ip6Type, ip6(a6, v6, 44, append([]byte{17, 0, 0, 8, 0, 0, 0, 7}, mark...))), true},
		{"multicast listener query", frame{own, all, ip6Type, hopByHop(130, query)}, false},
		{"IGMP query", frame{own, net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}, ip, igmpQuery}, false},
		{"redirect", to(ip6Type, ip6(ll, v6, 58, icmp6(ll, v6, 137, target(v6, own)))), false},
		{"VLAN", to(unix.ETH_P_8021Q, vlan), false},
		{"LLDP", frame{own, all, 0x88cc, mark}, false},
		{"spanning tree", frame{own, all, 38, append([]byte{0x42, 0x42, 3, 0, 0, 0}, mark...)}, false},
	}
	send, in := evil.packetSocket("eth0"), victim.packetSocket("eth0")
	try := func(f frame, within time.Duration) bool {
		if _, err := unix.Write(send, f.bytes()); err != nil {
			t.Fatalf("send: %v", err)
		}
		return sees(in, mark, within)
	}
	for _, tt := range tests {
		within := patience
		if !tt.pass {
			within = impatience
		}
		if got := try(tt.f, within); got != tt.pass {
			t.Errorf("%s: the neighbour gets it: %t, want %t", tt.name, got, tt.pass)
		}
	}

	// To the host's loopback, where a published port makes it take such packets.
	if err := localRoutes(evil.a.bridges[0]); err != nil {
		t.Fatal(err)
	}
	loop, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	bridgeMAC := linkMAC(evil.a.bridges[0])
	toLoop := frame{own, bridgeMAC, ip, udp4(a4, netip.MustParseAddr("127.0.0.1"), 5, uint16(loop.LocalAddr().(*net.UDPAddr).Port), mark)}
	gets := func(within time.Duration) bool {
		if _, err := unix.Write(send, toLoop.bytes()); err != nil {
			t.Fatal(err)
		}
		loop.SetReadDeadline(time.Now().Add(within))
		_, _, err := loop.ReadFrom(make([]byte, 100))
		return err == nil
	}
	if gets(impatience) {
		t.Error("a workload reaches what listens on the host's 127.0.0.1")
	}

	if err := l.t_().drop(); err != nil {
		t.Fatal(err)
	}
	if !gets(patience) {
		t.Error("without our rules the packet to 127.0.0.1 does not arrive either: the test is wrong")
	}
	for _, tt := range tests {
		// The bridge believes now what a frame before said of the neighbour's place.
		if _, err := unix.Write(in, frame{other, all, 0x88b5, nil}.bytes()); err != nil {
			t.Fatal(err)
		}
		if !try(tt.f, patience) {
			t.Errorf("%s: does not arrive without our rules either: the test is wrong", tt.name)
		}
	}
}

// machine attaches a virtual machine to the default network.
func (l *lab) machine() (tap int, nic workload.NIC) {
	l.t.Helper()
	r := request("bridge")
	r.Taps = true
	a, err := l.Attach(context.Background(), r)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { a.Close() })
	return int(a.Taps[0].Fd()), a.NICs[0]
}

// nextMarked is the next frame with the mark that a machine gets in time, nil for none.
func nextMarked(tap int, within time.Duration) []byte {
	b := make([]byte, 2048)
	for end := time.Now().Add(within); time.Now().Before(end); {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(tap), Events: unix.POLLIN}}, int(within.Milliseconds())); err != nil || n == 0 {
			continue
		}
		if n, err := unix.Read(tap, b); err == nil && bytes.Contains(b[:n], mark) {
			return b[:n]
		}
	}
	return nil
}

// ownARP is a frame with the mark, to everybody, in which an interface says who it is.
func ownARP(t *testing.T, nic workload.NIC) []byte {
	t.Helper()
	own, err := net.ParseMAC(nic.MAC)
	if err != nil {
		t.Fatal(err)
	}
	addr := nic.Addresses[0].Addr()
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	return frame{own, all, unix.ETH_P_ARP, arp(1, own, addr, make([]byte, 6), addr.Next())}.bytes()
}

// withHole puts a struct virtio_net_hdr before such a frame, VIRTIO_NET_HDR_F_NEEDS_CSUM
// from byte 20 on, to byte 28: the sender's address.
func withHole(f []byte) []byte { return append([]byte{0: 1, 6: 20, 8: 8, 9: 0}, f...) }

// TestFrameStays: a frame of a machine's reaches others as the rules have seen it. By
// the header that a tap device may have before each frame (struct virtio_net_hdr) a
// guest would have 16 bits of its choice written into it where the frame leaves.
func TestFrameStays(t *testing.T) {
	l := newLab(t)
	evil, nic := l.machine()
	victim, _ := l.machine()
	f := ownARP(t, nic)
	// arrives returns the first frame with the mark that the other machine gets.
	arrives := func(sent []byte, within time.Duration) []byte {
		if _, err := unix.Write(evil, sent); err != nil {
			return nil
		}
		return nextMarked(victim, within)
	}
	if got := arrives(f, patience); !bytes.Equal(got, f) {
		t.Errorf("sent\n%x\nthe other machine gets\n%x", f, got)
	}
	if got := arrives(withHole(f), impatience); got != nil {
		t.Errorf("sent with a header\n%x\nthe other machine gets\n%x", f, got)
	}
}

// TestFrameOfContainerStays is TestFrameStays for a container, whose packet sockets take
// the header, too.
func TestFrameOfContainerStays(t *testing.T) {
	l := newLab(t)
	l.create(network.Network{Name: "second"})
	victim, _ := l.machine()
	send := func(t *testing.T, evil *box, nic workload.NIC) (got []byte, forged bool) {
		t.Helper()
		out := evil.packetSocket(nic.Name)
		if err := unix.SetsockoptInt(out, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			t.Fatal(err)
		}
		f := ownARP(t, nic)
		if _, err := unix.Write(out, append(make([]byte, 10), f...)); err != nil {
			t.Fatal(err)
		}
		if got := nextMarked(victim, patience); !bytes.Equal(got, f) {
			t.Fatalf("sent\n%x\nthe machine gets\n%x", f, got)
		}
		if _, err := unix.Write(out, withHole(f)); err != nil {
			t.Fatal(err)
		}
		got = nextMarked(victim, impatience)
		return got, got != nil && !bytes.Equal(got, f)
	}
	plain := l.start(request("bridge"))
	if _, forged := send(t, plain, plain.a.NICs[0]); !forged {
		t.Error("where it is not kept from it, a container changes no frame either: the test is wrong")
	}
	r := request("bridge")
	r.Raw = true
	raw := l.start(r)
	if got, forged := send(t, raw, raw.a.NICs[0]); forged {
		t.Errorf("the machine gets what the rules have not seen\n%x", got)
	}
	r = request("second")
	r.Raw = true
	later := l.start(r)
	joined := l.join(later, r, workload.Attachment{Network: "bridge"})
	if got, forged := send(t, later, joined.NICs[1]); forged {
		t.Errorf("by an interface that came later the machine gets what the rules have not seen\n%x", got)
	}
	serve(t, raw.namespace, ":9000")
	if got := ask(t, nil, "tcp", hostPort(raw.addr(true), 9000)); got == "" {
		t.Error("the container does not answer")
	}
}

// TestLeaving: while a workload is taken out of networks, an interface that is still
// there sends nothing as somebody else, though its rules are gone already.
func TestLeaving(t *testing.T) {
	l := newLab(t)
	for _, n := range []string{"one", "two", "three"} {
		l.create(network.Network{Name: n})
	}
	r := request("one", "two", "three")
	evil := l.start(r)
	var send, in []int
	var forged []frame
	for _, nic := range evil.a.NICs[1:] {
		own, err := net.ParseMAC(nic.MAC)
		if err != nil {
			t.Fatal(err)
		}
		victim := l.start(request(nic.Network))
		send, in = append(send, evil.packetSocket(nic.Name)), append(in, victim.packetSocket("eth0"))
		forged = append(forged, frame{own, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, unix.ETH_P_ARP,
			arp(2, own, mustRead(t, l, nic.Network).Subnets[0].Gateway, own, victim.addr(true))})
	}
	tried := 0
	Step = func(name string) {
		if name != "interface removed" || tried > 0 {
			return
		}
		for _, nic := range evil.a.NICs[1:] { // the rules go meanwhile
			end := time.Now().Add(patience)
			ruled, err := l.ruled(nic.Link)
			for err == nil && ruled && time.Now().Before(end) {
				time.Sleep(time.Millisecond)
				ruled, err = l.ruled(nic.Link)
			}
			if err != nil || ruled {
				t.Errorf("%s still has rules, %v: the test is wrong", nic.Name, err)
			}
		}
		for i, f := range forged {
			if _, err := unix.Write(send[i], f.bytes()); err != nil {
				continue // it was the first to go
			}
			tried++
			if sees(in[i], mark, impatience) {
				t.Errorf("%s, which is still there, sends as the gateway", evil.a.NICs[i+1].Name)
			}
		}
	}
	defer func() { Step = nil }()
	l.part(evil, r, "three", "one")
	if tried == 0 {
		t.Error("no interface was left to try: the test is wrong")
	}
}

// TestGroupOfPorts: ports are in the group of ours whatever their bridge is in, and the
// next start puts a bridge there that an engine made which knew of none, with its ports.
func TestGroupOfPorts(t *testing.T) {
	l := newLab(t)
	w := l.start(request("bridge"))
	bridge, port := w.a.bridges[0], w.a.NICs[0].Link
	for _, link := range []string{bridge, port} {
		command(t, "ip", "link", "set", link, "group", "0")
	}
	b := &box{namespace: newNamespace(t)}
	r := request("bridge")
	group := func(link string) uint32 {
		found, err := netlink.LinkByName(link)
		if err != nil {
			t.Fatal(err)
		}
		return found.Attrs().Group
	}
	var err error
	if b.a, err = l.Attach(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.a.Close() })
	for _, link := range []string{port, bridge} {
		if got := group(link); got != l.t_().group {
			t.Errorf("%s: got group %d after the next start, want %d", link, got, l.t_().group)
		}
	}
	command(t, "ip", "link", "set", bridge, "group", "0")
	if err := b.a.Enter(context.Background(), b.ns); err != nil {
		t.Fatal(err)
	}
	if got := group(b.a.NICs[0].Link); got != l.t_().group {
		t.Errorf("a port of a bridge in group 0: got group %d, want %d", got, l.t_().group)
	}
}

func mac(t *testing.T, b *box) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(b.a.NICs[0].MAC)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
