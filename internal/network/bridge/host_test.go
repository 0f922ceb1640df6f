package bridge

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// second is one more host, on another link: 198.51.100.2, 2001:db8:2::2.
func second(t *testing.T) *namespace {
	t.Helper()
	n := newNamespace(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink2"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(n.ns.Fd()))}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteLink("uplink2") })
	noProbation(t, nil, "uplink2")
	noProbation(t, n, "eth0")
	command(t, "ip", "addr", "add", "198.51.100.1/24", "dev", "uplink2")
	command(t, "ip", "addr", "add", "2001:db8:2::1/64", "dev", "uplink2", "nodad")
	command(t, "ip", "link", "set", "uplink2", "up")
	n.command("ip", "link", "set", "lo", "up") // without it IPv6 addresses do not work
	n.command("ip", "addr", "add", "198.51.100.2/24", "dev", "eth0")
	n.command("ip", "addr", "add", "2001:db8:2::2/64", "dev", "eth0", "nodad")
	n.command("ip", "link", "set", "eth0", "up")
	n.command("ip", "route", "add", "default", "via", "198.51.100.1")
	n.command("ip", "-6", "route", "add", "default", "via", "2001:db8:2::1")
	return n
}

// TestNoRouter: a host that forwarded nothing between its neighbours does not begin
// to, and one that did goes on.
func TestNoRouter(t *testing.T) {
	for _, before := range []string{"0", "1"} {
		t.Run("forwarding="+before, func(t *testing.T) {
			l := newLab(t)
			a, b := outside(t), second(t)
			a.command("ip", "route", "add", "default", "via", "192.0.2.1")
			a.command("ip", "-6", "route", "add", "default", "via", "2001:db8::1")
			serve(t, b, ":80")
			for _, f := range []string{"ipv4", "ipv6"} {
				if err := set(before, f, "conf", "all", "forwarding"); err != nil {
					t.Fatal(err)
				}
			}
			w := l.start(withPorts(request("bridge"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"}))
			serve(t, w.namespace, ":80")
			send, in := a.packetSocket("eth0"), b.packetSocket("eth0")
			check := func(when string) {
				t.Helper()
				for _, to := range []string{"198.51.100.2:80", "[2001:db8:2::2]:80"} {
					wait := patience
					if before == "0" {
						wait = impatience
					}
					if got := askFor(t, a, "tcp", to, wait); (got != "") != (before == "1") {
						t.Errorf("%s: one neighbour reaches the other at %s as %q", when, to, got)
					}
					if got := ask(t, w.namespace, "tcp", to); got == "" {
						t.Errorf("%s: the workload does not reach %s", when, to)
					}
				}
				for name, f := range untracked(t, a, netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:2::2")) {
					wait := patience
					if before == "0" {
						wait = impatience
					}
					if _, err := unix.Write(send, f.bytes()); err != nil {
						t.Fatal(err)
					}
					if got := sees(in, mark, wait); got != (before == "1") {
						t.Errorf("%s: one neighbour's %s reaches the other: %t", when, name, got)
					}
				}
				if got := ask(t, a, "tcp", "192.0.2.1:8080"); got == "" && when != "without a network" {
					t.Errorf("%s: the published port does not work", when)
				}
			}
			check("with a workload")
			if err := l.Repair(context.Background()); err != nil {
				t.Fatal(err)
			}
			check("after a repair")
			// Another engine's network, made later, is no business of ours.
			other := newNamespace(t)
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "theirs"
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { deleteLink("theirs") })
			command(t, "ip", "addr", "add", "10.77.0.1/24", "dev", "theirs")
			command(t, "ip", "link", "set", "theirs", "up")
			if err := makeVeth("theirs", "theirport", "eth0", net.HardwareAddr{2, 7, 7, 7, 7, 7}, 1500, other.ns, 0); err != nil {
				t.Fatal(err)
			}
			other.command("ip", "addr", "add", "10.77.0.2/24", "dev", "eth0")
			other.command("ip", "link", "set", "eth0", "up")
			other.command("ip", "route", "add", "default", "via", "10.77.0.1")
			b.command("ip", "route", "replace", "10.77.0.0/24", "via", "198.51.100.1")
			if got := ask(t, other, "tcp", "198.51.100.2:80"); got != "10.77.0.2" {
				t.Errorf("another engine's workload gets answer %q", got)
			}
			deleteLink("theirport")

			// The guard stays when the networks go, as forwarding does.
			if err := l.Release(context.Background(), w.id); err != nil {
				t.Fatal(err)
			}
			n, err := l.read("bridge")
			if err == nil {
				err = l.remove(context.Background(), n)
			}
			if err != nil {
				t.Fatal(err)
			}
			wait := patience
			if before == "0" {
				wait = impatience
			}
			if got := askFor(t, a, "tcp", "198.51.100.2:80", wait); (got != "") != (before == "1") {
				t.Errorf("without a network: one neighbour reaches the other as %q", got)
			}
		})
	}
}

// untracked are packets from a host on our uplink to others beyond us, of which
// connection tracking makes no connection.
func untracked(t *testing.T, from *namespace, to4, to6 netip.Addr) map[string]frame {
	t.Helper()
	us, err := net.InterfaceByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	var them *net.Interface
	from.do(func() (err error) { them, err = net.InterfaceByName("eth0"); return err })
	own4, own6 := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
	return map[string]frame{
		"SYN with FIN":           {them.HardwareAddr, us.HardwareAddr, unix.ETH_P_IP, tcp4(own4, to4, 5, 80, 0x03, mark)},
		"neighbour solicitation": {them.HardwareAddr, us.HardwareAddr, unix.ETH_P_IPV6, solicitation(own6, to6)},
	}
}

func tcp4(src, dst netip.Addr, sport, dport uint16, flags byte, payload []byte) []byte {
	m := binary.BigEndian.AppendUint16(nil, sport)
	m = binary.BigEndian.AppendUint16(m, dport)
	m = append(append(m, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, flags, 0x20, 0, 0, 0, 0, 0), payload...)
	pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(m)))
	binary.BigEndian.PutUint16(m[16:], sum16(pseudo, m))
	b := append(udp4(src, dst, 0, 0, make([]byte, len(m)-8))[:20], m...)
	b[9], b[10], b[11] = unix.IPPROTO_TCP, 0, 0
	binary.BigEndian.PutUint16(b[10:], sum16(b[:20]))
	return b
}

// solicitation asks for the receiver's own address, which may be far away.
func solicitation(src, dst netip.Addr) []byte {
	body := append(append(make([]byte, 4), dst.AsSlice()...), mark...)
	return ip6(src, dst, unix.IPPROTO_ICMPV6, icmp6(src, dst, 135, body))
}

// TestUntracked: what connection tracking makes no connection of does not leave a
// workload's network, as it would leave with the workload's address.
func TestUntracked(t *testing.T) {
	l := newLab(t)
	out := outside(t)
	w := l.start(request("bridge"))
	src, dst := w.addr(false), netip.MustParseAddr("2001:db8::2")
	send, in := w.packetSocket("eth0"), out.packetSocket("eth0")
	to := func(kind uint16, body []byte) frame { return frame{mac(t, w), linkMAC(w.a.bridges[0]), kind, body} }
	for _, tt := range []struct {
		name string
		f    frame
		pass bool
	}{
		{"echo request", to(unix.ETH_P_IPV6, ip6(src, dst, unix.IPPROTO_ICMPV6, icmp6(src, dst, 128, append(make([]byte, 4), mark...)))), true},
		{"neighbour solicitation", to(unix.ETH_P_IPV6, solicitation(src, dst)), false},
		{"SYN with FIN", to(unix.ETH_P_IP, tcp4(w.addr(true), netip.MustParseAddr("192.0.2.2"), 5, 80, 0x03, mark)), false},
	} {
		wait := patience
		if !tt.pass {
			wait = impatience
		}
		if _, err := unix.Write(send, tt.f.bytes()); err != nil {
			t.Fatal(err)
		}
		if got := sees(in, mark, wait); got != tt.pass {
			t.Errorf("%s: another host gets it: %t, want %t", tt.name, got, tt.pass)
		}
	}
}

// TestGuardOfOwn: an interface of a workload's or a name server's, which another
// command is just making when the guard is recorded, is not the host's: the guard
// would outlive it, and the tables with it.
func TestGuardOfOwn(t *testing.T) {
	l := newLab(t)
	outside(t)
	for _, family := range []string{"ipv4", "ipv6"} {
		if err := set("0", family, "conf", "all", "forwarding"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{linkName(workload.NewID(), "n"), serverLink(strings.Repeat("0", 64))} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { deleteLink(name) })
	}
	l.start(request("bridge"))
	g, err := l.guarded()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]string{g.IPv4, g.IPv6} {
		if !slices.Equal(list, []string{"uplink"}) {
			t.Errorf("guarded: %q", list)
		}
	}
}

// TestAdvertisements: a host that has its default route from router advertisements
// keeps it when it begins to forward.
func TestAdvertisements(t *testing.T) {
	l := newLab(t)
	outside(t)
	if err := set("1", "ipv6", "conf", "uplink", "accept_ra"); err != nil {
		t.Fatal(err)
	}
	l.start(request("bridge"))
	b, err := os.ReadFile(sysctls + "/ipv6/conf/uplink/accept_ra")
	if err != nil || strings.TrimSpace(string(b)) != "2" {
		t.Errorf("got accept_ra %s, %v, want 2", b, err)
	}
	b, err = os.ReadFile(sysctls + "/ipv6/conf/all/forwarding")
	if err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Errorf("got forwarding %s, %v, want 1", b, err)
	}
}

// TestInternalNeedsNothing: an internal network changes no setting of the host.
func TestInternalNeedsNothing(t *testing.T) {
	l := newLab(t)
	l.create(network.Network{Name: "inner", Internal: true, Subnets: []network.Subnet{{Prefix: network.Any4}, {Prefix: network.Any6}}})
	l.start(request("inner"))
	for _, f := range []string{"ipv4", "ipv6"} {
		if on, err := forwards(f); err != nil || on {
			t.Errorf("the host forwards %s: %t, %v", f, on, err)
		}
	}
}

// TestStaleFlow: a client that sends datagrams all the time gets to the workload
// that has the port now, not to one that had it, and then to the host.
func TestStaleFlow(t *testing.T) {
	l := newLab(t)
	out := outside(t)
	ports := workload.Port{HostPort: 8053, Port: 53, Protocol: "udp"}
	var client net.Conn
	out.do(func() (err error) {
		client, err = net.Dial("udp", "192.0.2.1:8053")
		return err
	})
	defer client.Close()
	// say asks a question and returns who answers it. It may take a second try, as
	// the first packet to a host waits for its MAC address.
	say := func(question string) string {
		b := make([]byte, 64)
		for range 5 {
			client.SetDeadline(time.Now().Add(time.Second))
			client.Write([]byte(question))
			for {
				n, err := client.Read(b)
				if err != nil {
					break
				}
				if who, ok := strings.CutSuffix(string(b[:n]), " says "+question); ok {
					return who
				}
			}
		}
		return ""
	}
	answer := func(in func(func() error), at, with string) {
		var p net.PacketConn
		in(func() (err error) { p, err = net.ListenPacket("udp", at); return err })
		t.Cleanup(func() { p.Close() })
		go func() {
			buf := make([]byte, 64)
			for {
				n, from, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				p.WriteTo([]byte(with+" says "+string(buf[:n])), from)
			}
		}()
	}
	client.Write([]byte("early")) // a flow to the host itself, before there is a rule
	first := l.start(withPorts(request("bridge"), ports))
	answer(first.do, ":53", "first")
	if got := say("one"); got != "first" {
		t.Errorf("got %q, want first", got)
	}
	first.a.Close()
	if err := l.Release(context.Background(), first.id); err != nil {
		t.Fatal(err)
	}
	next := l.start(withPorts(request("bridge"), ports))
	answer(next.do, ":53", "second")
	if got := say("two"); got != "second" {
		t.Errorf("got %q, want second", got)
	}
	// Who gets an address gets none of its last owner's flows.
	r := request("bridge")
	r.Networks[0].IPv4 = first.addr(true)
	heir := l.start(r)
	serve(t, heir.namespace, ":80")
	if got := say("three"); got != "second" {
		t.Errorf("beside the heir: got %q, want second", got)
	}
	// Once nobody publishes the port, a program of the host's gets what comes.
	next.a.Close()
	if err := l.Release(context.Background(), next.id); err != nil {
		t.Fatal(err)
	}
	answer(func(listen func() error) {
		if err := listen(); err != nil {
			t.Fatal(err)
		}
	}, "192.0.2.1:8053", "host")
	if got := say("four"); got != "host" {
		t.Errorf("when it is published no more: got %q, want host", got)
	}
}

// TestCleanse: an address is given to the next owner without the flows of the one
// before, be it in turn or out of turn.
func TestCleanse(t *testing.T) {
	l := newLab(t)
	l.create(network.Network{Name: "small", Subnets: subnets("10.1.0.0/29")}) // .2 to .5
	chosen := request("small")
	chosen.Networks[0].IPv4 = netip.MustParseAddr("10.1.0.3")
	had := map[netip.Addr]bool{l.talk(l.start(chosen)): true}
	for range 6 { // round, and .3 in turn before that
		b := l.start(request("small"))
		if a := b.addr(true); had[a] && flowsTo(t, a) != 0 {
			t.Errorf("%s comes with flows of an earlier owner", a)
		}
		had[l.talk(b)] = true
	}
	chosen = request("small")
	chosen.Networks[0].IPv4 = netip.MustParseAddr("10.1.0.2")
	l.start(chosen)
	if flowsTo(t, chosen.Networks[0].IPv4) != 0 {
		t.Error("an address that was asked for comes with flows of an earlier owner")
	}
}

// TestCleanseRemoved: what a network knew of its addresses goes with it, and the
// next network that has them hands them out without an earlier owner's flows.
func TestCleanseRemoved(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	for _, tt := range []struct {
		name, next, subnet string
		remove             func(name string) error
	}{
		{"removed and made again", "n", "10.1.0.0/24", func(name string) error { _, err := l.Remove(ctx, name); return err }},
		{"pruned", "n", "10.1.0.0/24", func(string) error { _, err := l.Prune(ctx, nil); return err }},
		{"another's, which is larger", "other", "10.1.0.0/16", func(name string) error { _, err := l.Remove(ctx, name); return err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.create(network.Network{Name: "n", Subnets: subnets("10.1.0.0/24")})
			had := l.talk(l.start(request("n")))
			if err := tt.remove("n"); err != nil {
				t.Fatal(err)
			}
			l.create(network.Network{Name: tt.next, Subnets: subnets(tt.subnet)})
			b := l.start(request(tt.next))
			if b.addr(true) != had {
				t.Fatalf("the next owner has %s, not %s: the test is wrong", b.addr(true), had)
			}
			if n := flowsTo(t, had); n != 0 {
				t.Errorf("%s comes with %d flows of an earlier owner", had, n)
			}
			b.a.Close()
			if err := l.Release(ctx, b.id); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Remove(ctx, tt.next); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestFlowsOfOthers: to publish a port costs nobody the answer of another machine's
// same port.
func TestFlowsOfOthers(t *testing.T) {
	l := newLab(t)
	out := outside(t)
	serve(t, out, ":8053")
	there := netip.MustParseAddr("192.0.2.2")
	if ask(t, l.start(request("bridge")).namespace, "udp", hostPort(there, 8053)) == "" {
		t.Fatal("no answer")
	}
	had := flowsTo(t, there)
	if had == 0 {
		t.Fatal("there is no flow: the test is wrong")
	}
	l.start(withPorts(request("bridge"), workload.Port{HostPort: 8053, Port: 53, Protocol: "udp"}))
	if n := flowsTo(t, there); n != had {
		t.Errorf("of %d flows to another machine %d are left", had, n)
	}
}

// flowsTo counts the flows to an address.
func flowsTo(t *testing.T, a netip.Addr) (n int) {
	t.Helper()
	all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if b, ok := netip.AddrFromSlice(f.Forward.DstIP); ok && b.Unmap() == a {
			n++
		}
	}
	return n
}

// talk makes a flow to a workload, which outlives it, and returns the address.
func (l *lab) talk(b *box) netip.Addr {
	l.t.Helper()
	serve(l.t, b.namespace, ":80")
	if ask(l.t, nil, "udp", hostPort(b.addr(true), 80)) == "" {
		l.t.Fatal("no answer")
	}
	if flowsTo(l.t, b.addr(true)) == 0 {
		l.t.Fatal("there is no flow: the test is wrong")
	}
	if err := l.Release(context.Background(), b.id); err != nil {
		l.t.Fatal(err)
	}
	return b.addr(true)
}

// TestTap plays a virtual machine: it speaks to the host by the frames of its tap.
func TestTap(t *testing.T) {
	l := newLab(t)
	r := request("bridge")
	r.Taps, r.Owner = true, 1000
	a, err := l.Attach(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if len(a.Taps) != 1 || len(a.NICs) != 1 {
		t.Fatalf("got %+v", a)
	}
	nic := a.NICs[0]
	link, err := netlink.LinkByName(nic.Link)
	if err != nil {
		t.Fatal(err)
	}
	if tap, ok := link.(*netlink.Tuntap); !ok || tap.Owner != 1000 {
		t.Errorf("got %+v, want a tap of user 1000", link)
	}
	own, _ := net.ParseMAC(nic.MAC)
	gateway := nic.Gateways[0]
	question := func(spa netip.Addr) []byte {
		f := frame{own, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, unix.ETH_P_ARP, arp(1, own, spa, make([]byte, 6), gateway)}
		return f.bytes()
	}
	fd := int(a.Taps[0].Fd())
	answered := func(spa netip.Addr, within time.Duration) bool {
		b := make([]byte, 2048)
		for end := time.Now().Add(within); time.Now().Before(end); {
			if _, err := unix.Write(fd, question(spa)); err != nil {
				t.Fatal(err)
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(impatience.Milliseconds()))
			if err != nil || n == 0 {
				continue
			}
			k, err := unix.Read(fd, b)
			if err != nil {
				continue
			}
			f := b[:k]
			if len(f) >= 42 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_ARP && f[21] == 2 && bytes.Equal(f[28:32], gateway.AsSlice()) && bytes.Equal(f[38:42], spa.AsSlice()) {
				return true
			}
		}
		return false
	}
	if !answered(nic.Addresses[0].Addr(), patience) {
		t.Error("the gateway does not answer")
	}
	if answered(nic.Addresses[0].Addr().Next(), impatience) {
		t.Error("the gateway answers who asks with another's address")
	}
	a.Close()
	if _, err := netlink.LinkByName(nic.Link); err == nil {
		t.Error("the tap is there without its descriptor")
	}
	if err := l.Release(context.Background(), r.ID); err != nil {
		t.Fatal(err)
	}
	l.wantNothing("bridge")
}

// TestUnsupported names what the kernel lacks.
func TestUnsupported(t *testing.T) {
	err := unsupported(os.NewSyscallError("socket", unix.EPROTONOSUPPORT), "nf_tables")
	if !errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "nf_tables") {
		t.Errorf("got %v", err)
	}
}

// TestManyRules makes rules for more workloads and ports than a host will have, at
// once and one by one.
func TestManyRules(t *testing.T) {
	l := newLab(t)
	n := &network.Network{Bridge: "bh-0123456789ab", ID: strings.Repeat("0123456789abcdef", 4)}
	es := networkElements(n)
	a := netip.MustParseAddr("10.0.0.2")
	six := netip.MustParseAddr("fd00::2")
	var last []element
	for i := range 1000 {
		lease := network.Lease{Workload: workload.NewID(), Network: "n"}
		lease.NIC = workload.NIC{Link: linkName(lease.Workload, n.ID), MAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}.String()}
		lease.NIC.Addresses = []netip.Prefix{netip.PrefixFrom(a, 8), netip.PrefixFrom(six, 64)}
		a, six = a.Next(), six.Next()
		for p := range 20 {
			lease.Ports = append(lease.Ports, workload.Port{HostPort: uint16(20*i + p + 1), Port: uint16(p + 1), Protocol: "tcp"})
		}
		last = leaseElements(lease)
		es = append(es, last...)
	}
	if err := l.t_().rebuild(es); err != nil {
		t.Fatal(err)
	}
	if err := l.t_().rebuild(es); err != nil { // over what is there
		t.Fatal(err)
	}
	for range 2 {
		if err := l.t_().remove(last); err != nil {
			t.Fatal(err)
		}
		if err := l.t_().remove(last); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("removed again: got %v, want %v", err, os.ErrNotExist)
		}
		if err := l.t_().add(last); err != nil {
			t.Fatal(err)
		}
	}
	got := strings.Join(l.elements(), " ")
	for _, s := range []string{"everywhere4: 20000", "everywhere6: 20000", "open4: 20000", "open6: 20000", "ports: 1000", "ip6: 2000"} {
		if !strings.Contains(got, s) {
			t.Errorf("got %s, want %s", got, s)
		}
	}
}

// TestWithoutIPv6 is on a host where IPv6 is switched off.
func TestWithoutIPv6(t *testing.T) {
	l := newLab(t)
	out := outside(t)
	if err := set("1", "ipv6", "conf", "all", "disable_ipv6"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		set("0", "ipv6", "conf", "all", "disable_ipv6")
		command(t, "ip", "link", "set", "lo", "down")
		command(t, "ip", "link", "set", "lo", "up")
	})
	w := l.start(withPorts(request("bridge"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"}))
	if len(w.a.NICs[0].Addresses) != 1 {
		t.Errorf("got %v, want one address", w.a.NICs[0].Addresses)
	}
	serve(t, w.namespace, ":80")
	if got := ask(t, out, "tcp", "192.0.2.1:8080"); got != "192.0.2.2" {
		t.Errorf("got answer %q", got)
	}
	if _, err := l.Create(context.Background(), network.Network{Name: "six", Subnets: subnets("fd00:5::/64")}); !errors.Is(err, network.ErrInvalid) || !strings.Contains(err.Error(), "disable_ipv6") {
		t.Errorf("a network with IPv6: got %v", err)
	}
}
