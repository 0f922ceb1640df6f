package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// join puts a box into one more network.
func (l *lab) join(b *box, r network.Request, want workload.Attachment) *Attached {
	l.t.Helper()
	r.Networks, r.Join = append(slices.Clone(r.Networks), want), true
	a, err := l.Attach(context.Background(), r)
	if err == nil {
		err = a.Enter(context.Background(), b.ns)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return a
}

// part takes it out of one.
func (l *lab) part(b *box, r network.Request, name string, stays ...string) *Attached {
	l.t.Helper()
	a, err := l.Part(context.Background(), parting(r, name, stays...), b.ns)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { a.Close() })
	return a
}

func parting(r network.Request, name string, stays ...string) network.Request {
	r.Networks, r.Part = nil, name
	for _, n := range stays {
		r.Networks = append(r.Networks, workload.Attachment{Network: n})
	}
	return r
}

// TestJoin puts a workload that runs into a second network and takes it out of the
// first, whose route and ports go on to the second.
func TestJoin(t *testing.T) { eachNetfilter(t, testJoin) }

func testJoin(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	ctx := context.Background()
	front := l.create(network.Network{Name: "front", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.209.60.0/24")}}})
	back := l.create(network.Network{Name: "back", Subnets: []network.Subnet{
		{Prefix: netip.MustParsePrefix("10.209.61.0/24")}, {Prefix: netip.MustParsePrefix("fd20:9:61::/64")}}})
	r := withPorts(request("front"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"}, workload.Port{HostPort: 8080, Port: 80, Protocol: "udp"})
	r.Name = "web"
	web, other, neighbour := l.start(r), l.start(request("back")), l.start(request("front"))
	serve(t, web.namespace, ":80")
	serve(t, other.namespace, ":81")

	a := l.join(web, r, workload.Attachment{Network: "back", Aliases: []string{"www"}, IPv4: netip.MustParseAddr("10.209.61.9")})
	if len(a.NICs) != 2 || a.NICs[0].Network != "front" || a.NICs[1].Name != "eth1" || a.NICs[1].Addresses[0].String() != "10.209.61.9/24" || a.NICs[1].NetworkID != back.ID {
		t.Fatalf("got interfaces %+v", a.NICs)
	}
	if len(a.Ports) != 2 || len(a.Reserved) != 0 || !slices.Equal(a.Nameservers, nameservers(front)) || a.Host[0] != front.Subnets[0].Gateway {
		t.Errorf("got %+v", a.Prepared)
	}
	// The first network keeps its default route; that of a family that it has not,
	// is the second's.
	if g := a.NICs[1].Gateways; len(g) != 1 || g[0] != back.Subnets[1].Gateway {
		t.Errorf("got gateways %v", g)
	}
	wantRoutes(t, web, "default via 10.209.60.1 dev eth0", "default via fd20:9:61::1 dev eth1")
	if got := ask(t, web.namespace, "tcp", hostPort(other.addr(true), 81)); got != "10.209.61.9" {
		t.Errorf("its neighbour sees %q", got)
	}
	for _, n := range []*box{other, neighbour} {
		want := "10.209.61.9"
		if n == neighbour {
			want = web.addr(true).String()
		}
		got, err := resolve(t, n.namespace, n.a.Nameservers[0], "udp", "web.")
		if err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("web: got %v, %v, want %s", got, err, want)
		}
	}
	for _, name := range []string{"www.back.", other.a.NICs[0].Addresses[0].Addr().String()} {
		if _, err := resolve(t, web.namespace, a.Nameservers[0], "udp", name); err != nil {
			t.Errorf("%s, asked in the first network: %v", name, err)
		}
	}
	for _, protocol := range []string{"tcp", "udp"} {
		if ask(t, nil, protocol, "127.0.0.1:8080") == "" {
			t.Errorf("%s: the published port does not work any more", protocol)
		}
	}
	// As itself only.
	web.command("ip", "addr", "add", "10.209.61.77/24", "dev", "eth1")
	web.do(func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("10.209.61.77")}, Timeout: impatience}
		if c, err := d.Dial("tcp", hostPort(other.addr(true), 81)); err == nil {
			c.Close()
			t.Error("it can send as somebody else")
		}
		return nil
	})
	twice := r
	twice.Networks, twice.Join = append(request("front", "back").Networks, workload.Attachment{Network: "back"}), true
	if _, err := l.Attach(ctx, twice); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("twice: got %v", err)
	}

	gone := l.part(web, r, "front", "back")
	if len(gone.NICs) != 1 || gone.NICs[0].Network != "back" || len(gone.Ports) != 2 || !slices.Equal(gone.Nameservers, nameservers(back)) {
		t.Fatalf("got %+v", gone.Prepared)
	}
	if len(gone.Reserved) != 2 { // of IPv6, which the first network had not
		t.Errorf("%d ports are reserved beside those of before", len(gone.Reserved))
	}
	wantRoutes(t, web, "default via 10.209.61.1 dev eth1", "default via fd20:9:61::1 dev eth1")
	if got := web.command("ip", "-o", "link"); strings.Contains(got, "eth0") {
		t.Errorf("it still has\n%s", got)
	}
	for _, protocol := range []string{"tcp", "udp"} {
		if ask(t, nil, protocol, "127.0.0.1:8080") == "" {
			t.Errorf("%s: the published port has not moved", protocol)
		}
	}
	if in, err := l.Leases("front"); err != nil || len(in) != 1 {
		t.Errorf("leases of the first network: %v, %v", in, err)
	}
	if in, err := l.LeasesOf(r.ID); err != nil || len(in) != 1 || in[0].Networks != nil || len(in[0].Ports) != 2 {
		t.Errorf("its leases: %+v, %v", in, err)
	}
	l.wantOwned("after it has left")
	again := l.part(web, r, "front", "back") // as after a crash
	if len(again.Reserved) != 0 || len(again.NICs) != 1 {
		t.Errorf("a second time: got %+v", again)
	}
	// With the firewall flushed, all comes back.
	command(t, "nft", "flush", "ruleset")
	if err := l.Repair(ctx); err != nil {
		t.Fatal(err)
	}
	if ask(t, nil, "tcp", "127.0.0.1:8080") == "" {
		t.Error("the published port does not come back")
	}
	if _, err := l.Part(ctx, parting(r, "back"), web.ns); !errors.Is(err, network.ErrInvalid) || !strings.Contains(err.Error(), "ports are published") {
		t.Errorf("with ports: got %v", err)
	}
	for _, id := range []workload.ID{web.id, other.id, neighbour.id} {
		if err := l.Release(ctx, id); err != nil {
			t.Error(err)
		}
	}
	l.wantNothing("front")
	l.wantNothing("back")
}

func wantRoutes(t *testing.T, b *box, want ...string) {
	t.Helper()
	got := b.command("ip", "route", "show", "default") + b.command("ip", "-6", "route", "show", "default")
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in\n%s", w, got)
		}
	}
	if n := strings.Count(got, "default"); n != len(want) {
		t.Errorf("%d default routes:\n%s", n, got)
	}
}

// TestJoinRefused changes nothing of a workload that cannot join.
func TestJoinRefused(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	l := newLab(t)
	ctx := context.Background()
	l.create(network.Network{Name: "front"})
	l.create(network.Network{Name: "small", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("198.51.100.0/30")}}})
	l.create(network.Network{Name: "inner", Internal: true})
	l.start(request("small"))
	r := withPorts(request("front", "inner"), workload.Port{HostPort: 8081, Port: 80, Protocol: "tcp"})
	b := l.start(r)
	before := fmt.Sprint(l.elements())
	for _, taps := range []bool{false, true} {
		for want, a := range map[error]workload.Attachment{
			network.ErrExhausted: {Network: "small"}, network.ErrNotFound: {Network: "nowhere"},
			network.ErrAddressTaken: {Network: "small", IPv4: netip.MustParseAddr("198.51.100.2")},
		} {
			q := r
			q.Networks, q.Join, q.Taps = append(slices.Clone(r.Networks), a), true, taps
			if _, err := l.Attach(ctx, q); !errors.Is(err, want) {
				t.Errorf("%+v: got %v, want %v", a, err, want)
			}
		}
	}
	q := parting(r, "front", "inner") // which has no way out for its port
	if _, err := l.Part(ctx, q, b.ns); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if got := fmt.Sprint(l.elements()); got != before {
		t.Errorf("the rules are %s, were %s", got, before)
	}
	leases, err := l.LeasesOf(r.ID)
	if err != nil || len(leases) != 2 || !slices.Equal(leases[0].Networks, []string{"front", "inner"}) || len(leases[0].Ports) != 1 {
		t.Errorf("got leases %+v, %v", leases, err)
	}
	if ports := l.ports(mustRead(t, l, "small")); len(ports) != 1 {
		t.Errorf("interfaces %v", ports)
	}
}

func mustRead(t *testing.T, l *lab, name string) *network.Network {
	t.Helper()
	n, err := l.read(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
