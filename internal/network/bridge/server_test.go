package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// resolve asks a name server from a namespace.
func resolve(t *testing.T, n *namespace, server netip.Addr, protocol, name string) (addrs []string, err error) {
	t.Helper()
	n.do(func() error {
		// A goroutine of the resolver's own would be in the host's namespace, so the
		// connection is made here.
		c, derr := net.DialTimeout(protocol, hostPort(server, dns.Port), patience)
		if derr != nil {
			err = derr
			return nil
		}
		r := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		defer c.Close()
		var ips []net.IP
		ips, err = r.LookupIP(ctx, "ip4", name)
		for _, ip := range ips {
			addrs = append(addrs, ip.String())
		}
		return nil
	})
	return addrs, err
}

// warmUp has the cgroup library open what it keeps open for good.
func warmUp(t *testing.T) {
	m, err := cgroup.New("/bulkhead-test-bridge/warm-up", cgroup.Features{Controllers: []string{"memory"}}.Helper(serverMemory, serverTasks), cgroup.Options{})
	if err == nil {
		err = m.Create()
	}
	if err == nil {
		err = m.Destroy(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.RemoveEmptyParents("/bulkhead-test-bridge") })
}

// TestNameServer asks for names by every address of the name server, beside a host
// whose own firewall lets nothing in and whose own name server has every address.
func TestNameServer(t *testing.T) { eachNetfilter(t, testNameServer) }

func testNameServer(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	serve(t, nil, "0.0.0.0:53")
	command(t, "nft", "add table inet wall; add chain inet wall in { type filter hook input priority 0; policy drop; }; add rule inet wall in iifname lo accept")
	t.Cleanup(func() { command(t, "nft", "delete table inet wall") })

	a, b := l.start(request("bridge")), l.start(request("bridge"))
	if len(a.a.Nameservers) != 2 {
		t.Fatalf("got name servers %v, want one of each family", a.a.Nameservers)
	}
	r := request("bridge")
	for !strings.ContainsAny(r.ID.Short(), "abcdef") { // package net takes a number for no name
		r = request("bridge")
	}
	r.Name, r.Networks[0].Aliases = "web", []string{"www"}
	c := l.start(r)
	for _, server := range a.a.Nameservers {
		for _, protocol := range []string{"udp", "tcp"} {
			for _, name := range []string{"web", "www", r.ID.Short(), "web.bridge"} {
				got, err := resolve(t, a.namespace, server, protocol, name+".")
				if err != nil || !slices.Equal(got, []string{c.addr(true).String()}) {
					t.Errorf("%s at %s, %s: got %v, %v, want %s", name, server, protocol, got, err, c.addr(true))
				}
			}
		}
	}
	ctx := context.Background()
	r.Name = "site"
	if err := l.Rename(ctx, r); err != nil {
		t.Fatal(err)
	}
	if got, err := resolve(t, b.namespace, a.a.Nameservers[0], "udp", "site."); err != nil || len(got) != 1 {
		t.Errorf("after renaming: got %v, %v", got, err)
	}
	if err := l.Release(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	var none *net.DNSError
	if got, err := resolve(t, b.namespace, a.a.Nameservers[0], "udp", "site."); !errors.As(err, &none) || !none.IsNotFound {
		t.Errorf("after its end: got %v, %v, want no such host", got, err)
	}

	if _, err := dns.Find(l.server("bridge")); err != nil {
		t.Errorf("while workloads are there: %v", err)
	}
	for _, w := range []*box{a, b} {
		if err := l.Release(ctx, w.id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dns.Find(l.server("bridge")); !errors.Is(err, dns.ErrNotRunning) {
		t.Errorf("when the last has left: got %v, want %v", err, dns.ErrNotRunning)
	}
	l.wantNothing("bridge")

	// A network of four addresses has no room for one.
	l.create(network.Network{Name: "small", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("198.51.100.0/30")}}})
	if s := l.start(request("small")); len(s.a.Nameservers) != 0 {
		t.Errorf("a small network has name servers %v", s.a.Nameservers)
	}
}

// TestNamesOfSeveralNetworks has a workload in an internal network and in another
// one: it is told the names of both, and who is in one only is not.
func TestNamesOfSeveralNetworks(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	l.create(network.Network{Name: "back", Internal: true})
	named := func(name string, networks ...string) *box {
		r := request(networks...)
		r.Name = name
		return l.start(r)
	}
	db, shop, both := named("db", "back"), named("shop", "bridge"), named("both", "back", "bridge")
	if want := shop.a.Nameservers; !slices.Equal(both.a.Nameservers, want) {
		t.Errorf("it asks %v, want those of the network with a way out, %v", both.a.Nameservers, want)
	}
	for _, c := range []struct {
		from *box
		name string
		want bool
	}{
		{both, "db", true}, {both, "db.back", true}, {both, "shop", true}, {both, "shop.bridge", true}, {both, "nobody.back", false},
		{shop, "db", false}, {shop, "both", true}, {db, "shop", false}, {db, "both", true},
	} {
		got, err := resolve(t, c.from.namespace, c.from.a.Nameservers[0], "udp", c.name+".")
		var none *net.DNSError
		if c.want && (err != nil || len(got) != 1) || !c.want && (!errors.As(err, &none) || !none.IsNotFound) {
			t.Errorf("%s: got %v, %v, want it found: %t", c.name, got, err, c.want)
		}
	}
	if got, err := resolve(t, both.namespace, both.a.Nameservers[0], "udp", "db."); err != nil || got[0] != db.addr(true).String() {
		t.Errorf("db: got %v, %v, want %s", got, err, db.addr(true))
	}
	for _, w := range []*box{db, shop, both} {
		if err := l.Release(context.Background(), w.id); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServerAfterFailure fails to get a workload into a network whose name server is
// being replaced for it, because the host's own have changed: those who are in the
// network have one again.
func TestServerAfterFailure(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	l.create(network.Network{Name: "n"})
	l.create(network.Network{Name: "m"})
	resolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	t.Cleanup(func() { resolvConf = "/etc/resolv.conf" })
	host := func(nameserver string) {
		t.Helper()
		if err := os.WriteFile(resolvConf, []byte("nameserver "+nameserver+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host("192.0.2.1")
	there := l.start(request("n"))
	moving := request("m")
	joining := l.start(moving)
	for i, r := range []network.Request{request("n"), moving} {
		name := []string{"start", "join"}[i]
		old, err := dns.Find(l.server("n"))
		if err != nil {
			t.Fatalf("before the %s: %v", name, err)
		}
		host(fmt.Sprintf("192.0.2.%d", i+2))
		if name == "join" {
			r.Networks, r.Join = append(r.Networks, workload.Attachment{Network: "n"}), true
		}
		r.Taps = true
		// An interface in the place of its tap device.
		link := linkName(r.ID, mustRead(t, l, "n").ID)
		command(t, "ip", "link", "add", link, "type", "veth", "peer", "name", "bhwother")
		Step = func(step string) {
			// The old name server ends before the start fails.
			for end := time.Now().Add(patience); step == "rules added" && time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
				if p, err := dns.Find(l.server("n")); err != nil || p != old {
					return
				}
			}
		}
		_, err = l.Attach(t.Context(), r)
		Step = nil
		if err == nil {
			t.Fatalf("the %s does not fail: the test is wrong", name)
		}
		if _, err := dns.Find(l.server("n")); err != nil {
			t.Errorf("after a %s that failed: %v", name, err)
		}
	}
	for _, b := range []*box{there, joining} {
		if err := l.Release(context.Background(), b.id); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"n", "m"} {
		l.wantNoServer("in the end", mustRead(t, l, n))
	}
}

// TestMuteServer has a name server that never answers: who waits for it keeps nobody
// from changing networks, be it this one.
func TestMuteServer(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	l.create(network.Network{Name: "n"})
	l.create(network.Network{Name: "m"})
	l.o.DNSProgram = build(t, muteProgram)
	starting, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := request("n")
	a, err := l.Attach(starting, r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ns, entered := newNamespace(t), make(chan error, 1)
	go func() { entered <- a.Enter(starting, ns.ns) }()

	others, err := Open(l.root, l.Store.run, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, done := context.WithTimeout(context.Background(), patience)
	defer done()
	for _, name := range []string{"m", "n"} {
		r := request(name)
		b, err := others.Attach(ctx, r)
		if err != nil {
			t.Errorf("while one waits in n, in %s: %v", name, err)
			continue
		}
		b.Close()
		if err := others.Release(ctx, r.ID); err != nil {
			t.Errorf("while one waits in n, out of %s: %v", name, err)
		}
	}
	select {
	case err := <-entered:
		t.Errorf("nobody waited for the name server: %v", err)
	default:
	}
	cancel()
	if err := <-entered; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if _, err := dns.Find(l.server("n")); !errors.Is(err, dns.ErrNotRunning) {
		t.Errorf("the mute name server: got %v, want %v", err, dns.ErrNotRunning)
	}
	if err := l.Release(context.Background(), r.ID); err != nil {
		t.Fatal(err)
	}
	l.wantNoServer("in the end", mustRead(t, l, "n"))
}

// TestReplacedServer has somebody replace a name server that another start waits for:
// both have the one that came after.
func TestReplacedServer(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	l.create(network.Network{Name: "n"})
	works := l.o.DNSProgram
	l.o.DNSProgram = build(t, muteProgram)
	r := request("n")
	a, err := l.Attach(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ns, entered := newNamespace(t), make(chan error, 1)
	go func() { entered <- a.Enter(context.Background(), ns.ns) }()
	<-a.servers.begun
	l.o.DNSProgram = works
	b := l.start(request("n"))
	if err := <-entered; err != nil {
		t.Errorf("who waited for the first: %v", err)
	}
	for _, id := range []workload.ID{r.ID, b.id} {
		if err := l.Release(context.Background(), id); err != nil {
			t.Error(err)
		}
	}
}

// TestForwarded: which servers of a workload's own the name server asks for it.
func TestForwarded(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	l.create(network.Network{Name: "inner", Internal: true, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.209.70.0/24")}}})
	l.create(network.Network{Name: "outer", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.209.71.0/24")}}})
	l.create(network.Network{Name: "small", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("198.51.100.0/30")}}})
	for _, tt := range []struct {
		networks []string
		servers  string
		want     bool
	}{
		{[]string{"bridge"}, "", false}, {[]string{"bridge"}, "192.0.2.1", true}, {[]string{"bridge"}, "192.0.2.1 2001:db8::1", true},
		{[]string{"bridge"}, "192.0.2.1 127.0.0.1", false}, {[]string{"bridge"}, "::1", false}, {[]string{"bridge"}, "fe80::1", false},
		{[]string{"inner"}, "192.0.2.1", false}, {[]string{"inner"}, "10.209.70.9", true}, {[]string{"inner"}, "10.209.70.9 10.209.70.1", false},
		{[]string{"inner"}, "10.209.70.0", false}, {[]string{"inner"}, "10.209.70.254", false}, {[]string{"outer"}, "10.209.71.254", false}, {[]string{"outer"}, "10.209.71.1", true},
		{[]string{"inner", "bridge"}, "192.0.2.1", true}, {[]string{"small"}, "192.0.2.1", false},
	} {
		r := request(tt.networks...)
		for _, s := range strings.Fields(tt.servers) {
			r.Upstream = append(r.Upstream, netip.MustParseAddr(s))
		}
		b := l.start(r)
		if b.a.Forward != tt.want {
			t.Errorf("%v in %v: forwarded: %t", tt.servers, tt.networks, b.a.Forward)
		}
		leases, err := l.LeasesOf(r.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, lease := range leases {
			if lease.Network == "inner" && len(lease.Upstream) > 0 && tt.servers != "10.209.70.9" {
				t.Errorf("%v in %v: the internal network's name server would ask outside", tt.servers, tt.networks)
			}
		}
		p, err := dns.Find(l.server(tt.networks[0]))
		if dialer := p.Dialer != 0; tt.networks[0] == "inner" && (err != nil || dialer != (tt.servers == "10.209.70.9")) {
			t.Errorf("%v in %v: a dialer: %t, %v", tt.servers, tt.networks, dialer, err)
		}
		b.a.Close()
		if err := l.Release(context.Background(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUpstream(t *testing.T) {
	for in, want := range map[string]string{
		"": "127.0.0.1:53", "search x\n": "127.0.0.1:53", "nameserver x\nnameserver fe80::1%gone\n": "127.0.0.1:53",
		"nameserver fe80::1%lo\nnameserver fe80::1%1\nnameserver fe80::2%7\n": "[fe80::1%1]:53 [fe80::2%7]:53", "nameserver 127.0.0.53\n": "127.0.0.53:53", "# nameserver 9.9.9.9\nsearch x\nnameserver\t2001:db8::1 x\n": "[2001:db8::1]:53",
		"nameserver 10.0.0.1\nnameserver 10.0.0.1\nnameserver fe80::1%gone\nnameserver x\nnameserver ::\n": "10.0.0.1:53",
		"nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4":                   "1.1.1.1:53 2.2.2.2:53 3.3.3.3:53",
	} {
		var got []string
		for _, a := range parseUpstream(strings.NewReader(in)) {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: got %q, want %q", in, s, want)
		}
	}
}

func FuzzUpstream(f *testing.F) {
	f.Add("nameserver 127.0.0.53\noptions edns0\n")
	f.Fuzz(func(t *testing.T, in string) {
		got := parseUpstream(strings.NewReader(in))
		if len(got) == 0 || len(got) > dns.MaxUpstream {
			t.Errorf("got %v", got)
		}
		for _, a := range got {
			if _, err := strconv.ParseUint(a.Addr().Zone(), 10, 32); !a.IsValid() || a.Addr().Zone() != "" && err != nil {
				t.Errorf("got %v", a)
			}
		}
	})
}

// TestLostIDs: a range of IDs that a command took for a name server and did not live
// to write down goes with the network.
func TestLostIDs(t *testing.T) {
	l := newLab(t)
	n, err := l.Create(t.Context(), network.Network{Name: "lost"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(l.root, "idrange"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ids().Allocate(network.IDOwner+n.Name, func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if _, err := l.serverIDs(n); err != nil {
		t.Fatal(err)
	}
	ranges := func() (found []string) {
		t.Helper()
		names, err := os.ReadDir(filepath.Join(l.root, "idrange"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range names {
			if e.Type()&os.ModeSymlink != 0 {
				found = append(found, e.Name())
			}
		}
		return found
	}
	if got := ranges(); len(got) != 1 {
		t.Errorf("it has the ranges %q", got)
	}
	if err := l.freeIDs(n.Name); err != nil {
		t.Fatal(err)
	}
	if got := ranges(); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}
