package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func subnets(prefixes ...string) (out []network.Subnet) {
	for _, p := range prefixes {
		out = append(out, network.Subnet{Prefix: netip.MustParsePrefix(p)})
	}
	return out
}

func TestOverlap(t *testing.T) {
	l := newLab(t)
	outside(t)
	command(t, "ip", "route", "add", "10.9.0.0/16", "via", "192.0.2.2")
	command(t, "ip", "route", "add", "10.8.0.0/16", "via", "192.0.2.2", "table", "77")
	command(t, "ip", "route", "add", "default", "via", "192.0.2.2")
	l.create(network.Network{Name: "one", Subnets: subnets("10.1.0.0/16", "fd00:1::/64")})
	for _, tt := range []struct{ name, prefix, by string }{
		{"network", "10.1.2.0/24", `"one"`}, {"around a network", "10.0.0.0/12", ""}, {"network, IPv6", "fd00:1::/48", `"one"`},
		{"the host's address", "192.0.2.0/25", "uplink"}, {"the host's address, IPv6", "2001:db8::/48", "uplink"},
		{"a route", "10.9.9.0/24", "uplink"}, {"a route of another table", "10.8.1.0/24", "uplink"},
	} {
		_, err := l.Create(context.Background(), network.Network{Name: "two", Subnets: subnets(tt.prefix)})
		if !errors.Is(err, network.ErrOverlap) || !strings.Contains(err.Error(), tt.by) {
			t.Errorf("%s: %s: got %v, want %v that names %s", tt.name, tt.prefix, err, network.ErrOverlap, tt.by)
		}
	}
	if _, err := l.Create(context.Background(), network.Network{Name: "one"}); !errors.Is(err, network.ErrExists) {
		t.Errorf("the same name: got %v", err)
	}
	for _, name := range []string{"One", "Bridge"} {
		if _, err := l.Create(context.Background(), network.Network{Name: name}); !errors.Is(err, network.ErrExists) || !strings.Contains(err.Error(), strings.ToLower(name)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	n := l.create(network.Network{Name: "two", Subnets: subnets("10.2.0.0/16")})
	// A network of the host's that came since makes the difference when it is used.
	command(t, "ip", "addr", "add", "10.2.3.4/24", "dev", "uplink")
	if _, err := l.Attach(context.Background(), request("two")); !errors.Is(err, network.ErrOverlap) {
		t.Errorf("the host is in the subnet by now: got %v", err)
	}
	if _, err := netlink.LinkByName(n.Bridge); err == nil {
		t.Error("a bridge was made all the same")
	}
	// What nobody asked for gives way.
	d, err := l.Get(context.Background(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	command(t, "ip", "addr", "add", d.Subnets[0].Gateway.Next().String()+"/24", "dev", "uplink")
	b := l.start(request("bridge"))
	if d.Subnets[0].Prefix.Contains(b.addr(true)) {
		t.Errorf("%s is in the host's network", b.addr(true))
	}
	// So it does while its bridge is there, as after a crash before that was up.
	if err := l.Release(context.Background(), b.id); err != nil {
		t.Fatal(err)
	}
	if d, err = l.Get(context.Background(), "bridge"); err != nil {
		t.Fatal(err)
	}
	command(t, "ip", "link", "set", d.Bridge, "down")
	command(t, "ip", "addr", "add", d.Subnets[0].Gateway.Next().String()+"/24", "dev", "uplink")
	l.start(request("bridge"))
	now, err := l.Get(context.Background(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	if got := command(t, "ip", "-4", "-o", "addr", "show", "dev", d.Bridge); strings.Count(got, "inet ") != 1 || !strings.Contains(got, now.Subnets[0].Gateway.String()+"/") {
		t.Errorf("the bridge has the addresses %s, want %s alone", got, now.Subnets[0].Gateway)
	}
}

// TestRoots has two state roots on one host.
func TestRoots(t *testing.T) {
	a, b := newLab(t), newLab(t)
	w1, w2 := a.start(request("bridge")), b.start(request("bridge"))
	if w1.addr(true) == w2.addr(true) || w1.a.bridges[0] == w2.a.bridges[0] {
		t.Errorf("both have %s on %s", w1.addr(true), w1.a.bridges[0])
	}
	if err := a.Repair(context.Background()); err != nil {
		t.Fatal(err)
	}
	serve(t, w2.namespace, ":80")
	if got := ask(t, nil, "tcp", hostPort(w2.addr(true), 80)); got == "" {
		t.Error("the repair of one root breaks the other")
	}
	if got := askFor(t, w1.namespace, "tcp", hostPort(w2.addr(true), 80), impatience); got != "" {
		t.Errorf("networks of two roots are connected: got %q", got)
	}
}

func TestExhausted(t *testing.T) {
	l := newLab(t)
	l.create(network.Network{Name: "small", Subnets: subnets("10.1.0.0/29")}) // .1 gateway, .6 name server
	ctx := context.Background()
	var all []network.Request
	seen := map[string]bool{}
	for range 4 {
		r := request("small")
		a, err := l.Attach(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
		seen[a.NICs[0].Addresses[0].String()] = true
	}
	want := map[string]bool{"10.1.0.2/29": true, "10.1.0.3/29": true, "10.1.0.4/29": true, "10.1.0.5/29": true}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", seen, want)
	}
	if _, err := l.Attach(ctx, request("small")); !errors.Is(err, network.ErrExhausted) || !strings.Contains(err.Error(), "10.1.0.0/29") {
		t.Errorf("the fifth: got %v, want %v", err, network.ErrExhausted)
	}
	if err := l.Release(ctx, all[2].ID); err != nil {
		t.Fatal(err)
	}
	if a, err := l.Attach(ctx, request("small")); err != nil || a.NICs[0].Addresses[0].String() != "10.1.0.4/29" {
		t.Errorf("after a release: got %+v, %v", a, err)
	}
	if _, err := l.Remove(ctx, "small"); !errors.Is(err, network.ErrInUse) || !strings.Contains(err.Error(), all[0].Name) && !strings.Contains(err.Error(), "more") {
		t.Errorf("remove: got %v, want %v", err, network.ErrInUse)
	}
}

func TestAddresses(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	n := network.Network{Name: "n", Subnets: subnets("10.1.0.0/24", "fd00:1::/64")}
	n.Subnets[0].Gateway, n.Subnets[0].Range = netip.MustParseAddr("10.1.0.254"), netip.MustParsePrefix("10.1.0.128/30")
	l.create(n)
	ask := func(f func(*workload.Attachment)) (string, error) {
		r := request("n")
		f(&r.Networks[0])
		a, err := l.Attach(ctx, r)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(a.NICs[0].Addresses, " ", a.NICs[0].MAC), nil
	}
	ip := func(s string) func(*workload.Attachment) {
		return func(a *workload.Attachment) {
			if addr := netip.MustParseAddr(s); addr.Is4() {
				a.IPv4 = addr
			} else {
				a.IPv6 = addr
			}
		}
	}
	mac := func(s string) func(*workload.Attachment) { return func(a *workload.Attachment) { a.MAC = s } }
	for _, tt := range []struct {
		name string
		f    func(*workload.Attachment)
		want string
		err  error
	}{
		{"any", func(*workload.Attachment) {}, "[10.1.0.128/24 fd00:1::2/64] 02:42:0a:01:00:80", nil},
		{"asked for, outside the range", ip("10.1.0.7"), "[10.1.0.7/24 fd00:1::3/64] 02:42:0a:01:00:07", nil},
		{"asked for again", ip("10.1.0.7"), "", network.ErrAddressTaken},
		{"IPv6", ip("fd00:1::99"), "[10.1.0.129/24 fd00:1::99/64] 02:42:0a:01:00:81", nil},
		{"the gateway's", ip("10.1.0.254"), "", network.ErrAddressTaken},
		{"the name server's", ip("10.1.0.253"), "", network.ErrAddressTaken},
		{"the broadcast's", ip("10.1.0.255"), "", network.ErrInvalid},
		{"another network's", ip("10.2.0.1"), "", network.ErrInvalid},
		{"MAC", mac("02:00:00:00:00:01"), "[10.1.0.130/24 fd00:1::4/64] 02:00:00:00:00:01", nil},
		{"MAC again", mac("02:00:00:00:00:01"), "", network.ErrAddressTaken},
		{"MAC of a group", mac("01:00:00:00:00:01"), "", network.ErrInvalid},
		{"no MAC", mac("x"), "", network.ErrInvalid},
		{"the last of the range", func(*workload.Attachment) {}, "[10.1.0.131/24 fd00:1::6/64] 02:42:0a:01:00:83", nil},
		{"the range is used up", func(*workload.Attachment) {}, "", network.ErrExhausted},
	} {
		got, err := ask(tt.f)
		if got != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%s: got %s, %v, want %s, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
	l.create(network.Network{Name: "six", Subnets: subnets("fd00:2::/64")})
	b := l.start(request("six"))
	if len(b.a.NICs[0].Addresses) != 1 || b.addr(false).String() != "fd00:2::2" {
		t.Errorf("IPv6 alone: got %v", b.a.NICs[0])
	}
}

// TestOwnMAC: the hardware address that comes from an IP address is another one if a
// workload has asked for that.
func TestOwnMAC(t *testing.T) {
	l := newLab(t)
	l.create(network.Network{Name: "n", Subnets: subnets("10.1.0.0/24")})
	first := request("n")
	first.Networks[0].MAC = "02:42:0a:01:00:03"
	for _, tt := range []struct {
		r    network.Request
		want string
	}{{first, "[10.1.0.2/24] 02:42:0a:01:00:03"}, {request("n"), "[10.1.0.3/24] 02:43:0a:01:00:03"}, {request("n"), "[10.1.0.4/24] 02:42:0a:01:00:04"}} {
		b := l.start(tt.r)
		if got := fmt.Sprint(b.a.NICs[0].Addresses, " ", b.a.NICs[0].MAC); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// TestLast gives a workload that is started again what it had.
func TestLast(t *testing.T) {
	l := newLab(t)
	r := withPorts(request("bridge"), workload.Port{Port: 80, Protocol: "tcp"}, workload.Port{HostPort: 20000, HostPortEnd: 20010, Port: 81, Protocol: "udp"})
	first := l.start(r)
	first.a.Close()
	r.Last, r.LastPorts = first.a.NICs, first.a.Ports
	again := l.start(r)
	if fmt.Sprint(again.a.Prepared) != fmt.Sprint(first.a.Prepared) {
		t.Errorf("got  %+v\nwant %+v", again.a.Prepared, first.a.Prepared)
	}
	in, err := l.Leases("bridge")
	if err != nil || len(in) != 1 {
		t.Errorf("got %d leases, %v, want 1", len(in), err)
	}
	// Unless somebody else has it by now.
	again.a.Close()
	if err := l.Release(context.Background(), r.ID); err != nil {
		t.Fatal(err)
	}
	thief := request("bridge")
	thief.Networks[0].IPv4 = first.addr(true)
	thief.Ports = []workload.Port{{HostPort: first.a.Ports[0].HostPort, Port: 1, Protocol: "tcp"}}
	l.start(thief)
	other := l.start(r)
	if other.addr(true) == first.addr(true) || other.a.Ports[0].HostPort == first.a.Ports[0].HostPort {
		t.Errorf("got %+v, which is taken", other.a.Prepared)
	}
}

func TestPorts(t *testing.T) {
	l := newLab(t)
	outside(t)
	l.create(network.Network{Name: "four"})
	l.create(network.Network{Name: "inner", Internal: true})
	host := netip.MustParseAddr
	for _, tt := range []struct {
		name    string
		network string
		port    workload.Port
		err     error
		mention string
	}{
		{"IPv6 loopback", "bridge", workload.Port{HostIP: host("::1"), HostPort: 80, Port: 80, Protocol: "tcp"}, workload.ErrUnsupported, "route_localnet"},
		{"address of nobody", "bridge", workload.Port{HostIP: host("192.0.2.77"), HostPort: 80, Port: 80, Protocol: "tcp"}, network.ErrInvalid, "192.0.2.77: it is not an address of this host"},
		{"IPv6 without it", "four", workload.Port{HostIP: host("2001:db8::1"), HostPort: 80, Port: 80, Protocol: "tcp"}, network.ErrInvalid, "no IPv6"},
		{"internal", "inner", workload.Port{HostPort: 80, Port: 80, Protocol: "tcp"}, network.ErrInvalid, "internal"},
		{"protocol", "bridge", workload.Port{HostPort: 80, Port: 80, Protocol: "sctp"}, network.ErrInvalid, "sctp"},
		{"no port", "bridge", workload.Port{HostPort: 80, Protocol: "tcp"}, network.ErrInvalid, "port 0"},
		{"backwards", "bridge", workload.Port{HostPort: 80, HostPortEnd: 79, Port: 1, Protocol: "tcp"}, network.ErrInvalid, "no range"},
	} {
		_, err := l.Attach(context.Background(), withPorts(request(tt.network), tt.port))
		if !errors.Is(err, tt.err) || err == nil || !strings.Contains(err.Error(), tt.mention) {
			t.Errorf("%s: got %v, want %v that mentions %q", tt.name, err, tt.err, tt.mention)
		}
		l.wantNothing(tt.network)
	}
	// A range gives one free port after the other, and then none.
	serve(t, nil, "127.0.0.1:30001")
	var got []uint16
	for range 2 {
		b := l.start(withPorts(request("bridge"), workload.Port{HostPort: 30000, HostPortEnd: 30002, Port: 1, Protocol: "tcp"}))
		got = append(got, b.a.Ports[0].HostPort)
	}
	if !slices.Equal(got, []uint16{30000, 30002}) {
		t.Errorf("of a range: got %v, want 30000 and 30002", got)
	}
	_, err := l.Attach(context.Background(), withPorts(request("bridge"), workload.Port{HostPort: 30000, HostPortEnd: 30002, Port: 1, Protocol: "tcp"}))
	if !errors.Is(err, network.ErrPortTaken) || !strings.Contains(err.Error(), "30000-30002/tcp") {
		t.Errorf("a range in use: got %v", err)
	}
}

// TestClosing publishes a port whose last owner closed a connection just now.
func TestClosing(t *testing.T) {
	l := newLab(t)
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p := workload.Port{HostPort: uint16(s.Addr().(*net.TCPAddr).Port), Port: 80, Protocol: "tcp"}
	attach := func() string {
		_, err := l.Attach(context.Background(), withPorts(request("bridge"), p))
		if !errors.Is(err, network.ErrPortTaken) {
			t.Fatalf("got %v, want %v", err, network.ErrPortTaken)
		}
		return err.Error()
	}
	if got := attach(); strings.Contains(got, "still being closed") {
		t.Errorf("while a program listens: got %q", got)
	}
	server.Close() // first, so that its end waits
	io.ReadAll(c)
	c.Close()
	s.Close()
	if got := attach(); !strings.Contains(got, "still being closed") {
		t.Errorf("in TIME_WAIT: got %q", got)
	}
}

// TestMany attaches, enters and releases fifty workloads at once.
func TestMany(t *testing.T) {
	l := newLab(t)
	const n = 50
	boxes := make([]*box, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		boxes[i] = &box{namespace: newNamespace(t)}
		wg.Go(func() {
			b, r := boxes[i], request("bridge")
			b.id = r.ID
			r.Ports = []workload.Port{{Port: 80, Protocol: "tcp"}}
			// Each process has a Store of its own.
			s, err := Open(l.root, l.run, Options{})
			if err == nil {
				b.a, err = s.Attach(context.Background(), r)
			}
			if err == nil {
				err = b.a.Enter(context.Background(), b.ns)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{}
	for _, b := range boxes {
		seen[b.addr(true)], seen[b.addr(false)] = true, true
	}
	if len(seen) != 2*n {
		t.Errorf("got %d addresses, want %d", len(seen), 2*n)
	}
	serve(t, boxes[7].namespace, ":80")
	if got := ask(t, boxes[n-1].namespace, "tcp", hostPort(boxes[7].addr(true), 80)); got != boxes[n-1].addr(true).String() {
		t.Errorf("got answer %q", got)
	}
	if got := ask(t, nil, "tcp", fmt.Sprintf("127.0.0.1:%d", boxes[7].a.Ports[0].HostPort)); got == "" {
		t.Error("no answer from a published port")
	}
	for i, b := range boxes {
		wg.Go(func() {
			b.a.Close()
			errs[i] = l.Release(context.Background(), b.id)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	l.wantNothing("bridge")
}

// TestRename: an alias or a host name that is like the old name stays.
func TestRename(t *testing.T) {
	l := newLab(t)
	l.create(network.Network{Name: "n"})
	r := request("bridge", "n")
	r.Name, r.Hostname, r.Networks[1].Aliases = "web", "host", []string{"web", "www"}
	l.start(r)
	r.Name = "api"
	if err := l.Rename(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	leases, err := l.LeasesOf(r.ID)
	if err != nil || len(leases) != 2 {
		t.Fatalf("got leases %+v, %v", leases, err)
	}
	want := []string{"api", "host", r.ID.Short()}
	if got := leases[0].Names; !slices.Equal(got, want) {
		t.Errorf("without an alias: got %q, want %q", got, want)
	}
	if got, want := leases[1].Names, append(want, "web", "www"); !slices.Equal(got, want) {
		t.Errorf("with the alias: got %q, want %q", got, want)
	}
}

// TestRepair takes away what somebody may take away.
func TestRepair(t *testing.T) {
	for _, tt := range []struct {
		name   string
		break_ func(t *testing.T, w *box)
	}{
		{"nothing", func(*testing.T, *box) {}},
		{"rules flushed", func(t *testing.T, _ *box) { command(t, "nft", "flush", "ruleset") }},
		{"a set flushed", func(t *testing.T, w *box) {
			command(t, "sh", "-c", "for t in $(nft list tables inet | cut -d' ' -f3); do nft flush set inet $t bridges; nft flush map inet $t everywhere4; done")
		}},
		{"bridge down", func(t *testing.T, w *box) { command(t, "ip", "link", "set", w.a.bridges[0], "down") }},
		{"bridge removed", func(t *testing.T, w *box) { command(t, "ip", "link", "del", w.a.bridges[0]) }},
		{"addresses of the bridge removed", func(t *testing.T, w *box) { command(t, "ip", "addr", "flush", "dev", w.a.bridges[0]) }},
		{"port taken out of the bridge", func(t *testing.T, w *box) { command(t, "ip", "link", "set", w.a.NICs[0].Link, "nomaster") }},
		{"forwarding switched off", func(t *testing.T, _ *box) { command(t, "sysctl", "-q", "net.ipv4.ip_forward=0") }},
		{"route_localnet switched off", func(t *testing.T, w *box) {
			command(t, "sysctl", "-q", "net.ipv4.conf."+w.a.bridges[0]+".route_localnet=0")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			out := outside(t)
			serve(t, out, ":9000")
			w := l.start(withPorts(request("bridge"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"}))
			serve(t, w.namespace, ":80")
			tt.break_(t, w)
			// An interface of a workload that is not recorded.
			stray := newNamespace(t)
			if _, err := netlink.LinkByName(w.a.bridges[0]); err == nil {
				if err := makeVeth(w.a.bridges[0], "bhwstray", "eth0", mac(t, w), 1500, stray.ns, l.t_().group); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Repair(context.Background()); err != nil {
				t.Fatal(err)
			}
			if _, err := netlink.LinkByName("bhwstray"); err == nil {
				t.Error("a stray interface is left")
			}
			if got := ask(t, out, "tcp", "192.0.2.1:8080"); got != "192.0.2.2" {
				t.Errorf("published port: got answer %q", got)
			}
			if got := ask(t, nil, "tcp", "127.0.0.1:8080"); got == "" {
				t.Error("published port on loopback: no answer")
			}
			if got := ask(t, w.namespace, "tcp", "192.0.2.2:9000"); got != "192.0.2.1" {
				t.Errorf("out: got answer %q", got)
			}
		})
	}
}

func TestNetworks(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	// No beginning of an ID is called like them.
	for _, n := range []string{"wb", "wa", "wc"} {
		l.create(network.Network{Name: n, Labels: map[string]string{"of": n}})
	}
	all, err := l.List(ctx)
	var got []string
	for _, n := range all {
		got = append(got, n.Name)
	}
	if err != nil || !slices.Equal(got, []string{"bridge", "wa", "wb", "wc"}) {
		t.Fatalf("got %v, %v", got, err)
	}
	if n, err := l.Get(ctx, all[2].ID[:8]); err != nil || n.Name != "wb" {
		t.Errorf("by ID: got %+v, %v", n, err)
	}
	for ref, want := range map[string]error{"": network.ErrNotFound, "x": network.ErrNotFound, "../a": network.ErrNotFound} {
		if _, err := l.Get(ctx, ref); !errors.Is(err, want) {
			t.Errorf("get %q: got %v, want %v", ref, err, want)
		}
	}
	if _, err := l.Remove(ctx, "bridge"); !errors.Is(err, network.ErrDefault) {
		t.Errorf("remove the default: got %v", err)
	}
	l.start(request("wa"))
	removed, err := l.Prune(ctx, func(n network.Network) bool { return n.Labels["of"] == "wc" })
	if err != nil || !slices.Equal(removed, []string{"wb"}) {
		t.Errorf("prune: got %v, %v, want wb", removed, err)
	}
	if _, err := l.Remove(ctx, "wb"); !errors.Is(err, network.ErrNotFound) {
		t.Errorf("remove again: got %v", err)
	}
	// A record that somebody damaged.
	if err := os.WriteFile(filepath.Join(l.networks(), "d.json"), []byte(`{"name":"d","bridge":"eth0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Get(ctx, "d"); err == nil {
		t.Error("a damaged record is believed")
	}
	os.Remove(filepath.Join(l.networks(), "d.json"))
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"name":"n","id":"` + strings.Repeat("a", 64) + `","bridge":"bh-aaaaaaaaaaaa","subnets":[{"prefix":"10.0.0.0/24","gateway":"10.0.0.1"}]}`))
	f.Add([]byte(`{"name":"n","id":"` + strings.Repeat("a", 64) + `","bridge":"bh-aaaaaaaaaaaa","subnets":[{"prefix":"fd00::/64","gateway":"fd00::1","range":"fd00::/120"}]}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, in []byte) {
		file := filepath.Join(dir, "n.json")
		if err := os.WriteFile(file, in, 0o600); err != nil {
			t.Fatal(err)
		}
		n := &network.Network{}
		if readJSON(file, n) != nil || intact(n, "n") != nil {
			return
		}
		networkElements(n)
		for _, sub := range n.Subnets {
			if a, err := pick(sub, netip.Addr{}, netip.Addr{}, netip.Addr{}, nil); err == nil && (!sub.Host(a) || a == sub.Gateway || a == sub.Nameserver()) {
				t.Errorf("%+v hands out %s", sub, a)
			}
		}
	})
}

func FuzzLease(f *testing.F) {
	id := strings.Repeat("a", 64)
	f.Add(id+"-n", []byte(`{"workload":"`+id+`","network":"n","nic":{"link":"bhw1","mac":"02:00:00:00:00:01","addresses":["10.0.0.2/24","fd00::2/64"]},"ports":[{"hostPort":1,"port":2,"protocol":"tcp"}]}`))
	dir := f.TempDir()
	s, err := Open(filepath.Join(dir, "root"), filepath.Join(dir, "run"), Options{})
	if err != nil {
		f.Fatal(err)
	}
	if err := os.MkdirAll(s.members(), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string, in []byte) {
		if strings.ContainsAny(name, "/\x00") || name == "" || name == "." || name == ".." || len(name) > 200 {
			return
		}
		file := filepath.Join(s.members(), name)
		if err := os.WriteFile(file, in, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file)
		all, err := s.allLeases()
		if err != nil {
			return
		}
		for _, l := range all {
			for _, e := range leaseElements(l) {
				if len(e.key)%4 != 0 && len(e.key) != 16 {
					t.Errorf("set %s gets a key of %d bytes", e.set, len(e.key))
				}
			}
		}
	})
}
