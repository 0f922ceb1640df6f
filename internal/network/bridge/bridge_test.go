package bridge

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// eachNetfilter runs a test with and without IP rules for bridged frames, which is
// a setting of the host's: Docker switches it on.
func eachNetfilter(t *testing.T, f func(t *testing.T)) {
	for _, v := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+v, func(t *testing.T) {
			for _, key := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
				if err := set(v, "bridge", key); err != nil && v == "1" {
					t.Skip("the kernel has no br_netfilter")
				}
			}
			f(t)
		})
	}
}

// TestReach is who reaches whom, by what, and as whom the server sees him.
func TestReach(t *testing.T) { eachNetfilter(t, testReach) }

func testReach(t *testing.T) {
	l := newLab(t)
	out := outside(t)
	serve(t, out, ":9000")
	serve(t, nil, ":7000")
	l.create(network.Network{Name: "other", Subnets: []network.Subnet{{Prefix: network.Any4}, {Prefix: network.Any6}}})
	l.create(network.Network{Name: "inner", Internal: true, Subnets: []network.Subnet{{Prefix: network.Any4}, {Prefix: network.Any6}}})

	r := request("bridge")
	for _, p := range []string{"tcp", "udp"} {
		r.Ports = append(r.Ports,
			workload.Port{HostPort: 8080, Port: 80, Protocol: p},
			workload.Port{HostPort: 8081, Port: 80, Protocol: p, HostIP: netip.MustParseAddr("127.0.0.1")},
			workload.Port{HostPort: 8082, Port: 80, Protocol: p, HostIP: netip.MustParseAddr("192.0.2.1")},
			workload.Port{HostPort: 8082, Port: 80, Protocol: p, HostIP: netip.MustParseAddr("2001:db8::1")},
			workload.Port{HostPort: 8083, Port: 80, Protocol: p, HostIP: netip.IPv4Unspecified()})
	}
	web, peer := l.start(r), l.start(request("bridge"))
	stranger, inner, inner2 := l.start(request("other")), l.start(request("inner")), l.start(request("inner"))
	for _, b := range []*box{web, stranger, inner2} {
		serve(t, b.namespace, ":80")
		serve(t, b.namespace, ":81") // not published
	}
	out.command("ip", "route", "add", "172.16.0.0/12", "via", "192.0.2.1")
	out.command("ip", "route", "add", "fd00::/8", "via", "2001:db8::1")
	var host *namespace
	gateway := func(b *box, four bool) string {
		for _, g := range b.a.NICs[0].Gateways {
			if g.Is4() == four {
				return g.String()
			}
		}
		t.Fatal("no gateway")
		return ""
	}
	at := func(b *box, four bool, port uint16) string { return hostPort(b.addr(four), port) }
	for _, p := range []string{"tcp", "udp"} {
		for _, tt := range []struct {
			name string
			from *namespace
			to   string
			want string
		}{
			{"neighbour", peer.namespace, at(web, true, 80), peer.addr(true).String()},
			{"neighbour, IPv6", peer.namespace, at(web, false, 80), peer.addr(false).String()},
			{"neighbour, a port that is not published", peer.namespace, at(web, true, 81), peer.addr(true).String()},
			{"host to workload", host, at(web, true, 81), gateway(web, true)},
			{"host to workload, IPv6", host, at(web, false, 81), gateway(web, false)},
			{"out", peer.namespace, "192.0.2.2:9000", "192.0.2.1"},
			{"out, IPv6", peer.namespace, "[2001:db8::2]:9000", "2001:db8::1"},

			{"published, from outside", out, "192.0.2.1:8080", "192.0.2.2"},
			{"published, from outside, IPv6", out, "[2001:db8::1]:8080", "2001:db8::2"},
			{"published, from the host", host, "192.0.2.1:8080", "192.0.2.1"},
			{"published, from the host, IPv6", host, "[2001:db8::1]:8080", "2001:db8::1"},
			{"published, from the host by loopback", host, "127.0.0.1:8080", gateway(web, true)},
			{"published, from the host by IPv6 loopback", host, "[::1]:8080", ""},
			{"published, from another network", stranger.namespace, "192.0.2.1:8080", stranger.addr(true).String()},
			{"published, from another network, IPv6", stranger.namespace, "[2001:db8::1]:8080", stranger.addr(false).String()},
			{"published, at the gateway of another network", stranger.namespace, gateway(stranger, true) + ":8080", stranger.addr(true).String()},
			{"published, from an internal network", inner.namespace, "192.0.2.1:8080", ""},

			{"on loopback, from the host", host, "127.0.0.1:8081", gateway(web, true)},
			{"on loopback, from outside", out, "192.0.2.1:8081", ""},
			{"on loopback, from the neighbour", peer.namespace, "192.0.2.1:8081", ""},
			{"on one address, from outside", out, "192.0.2.1:8082", "192.0.2.2"},
			{"on one address, from outside, IPv6", out, "[2001:db8::1]:8082", "2001:db8::2"},
			{"on one address, by loopback", host, "127.0.0.1:8082", ""},
			{"on all of IPv4", out, "192.0.2.1:8083", "192.0.2.2"},
			{"on all of IPv4, IPv6", out, "[2001:db8::1]:8083", ""},

			{"workload from outside", out, at(web, true, 81), ""},
			{"workload from outside, the port that is published", out, at(web, true, 80), ""},
			{"workload from outside, IPv6", out, at(web, false, 80), ""},
			{"other network", peer.namespace, at(stranger, true, 80), ""},
			{"other network, IPv6", peer.namespace, at(stranger, false, 80), ""},
			{"other network, the port that is published", stranger.namespace, at(web, true, 80), ""},
			{"the host", peer.namespace, "192.0.2.1:7000", ""},
			{"the host, IPv6", peer.namespace, "[2001:db8::1]:7000", ""},
			{"the host at the gateway", peer.namespace, gateway(peer, true) + ":7000", ""},
			{"the host at the gateway, IPv6", peer.namespace, "[" + gateway(peer, false) + "]:7000", ""},
			{"internal to internal", inner.namespace, at(inner2, true, 80), inner.addr(true).String()},
			{"internal to internal, IPv6", inner.namespace, at(inner2, false, 80), inner.addr(false).String()},
			{"internal to others", inner.namespace, at(stranger, true, 80), ""},
			{"internal to outside", inner.namespace, "192.0.2.2:9000", ""},
			{"others to internal", peer.namespace, at(inner2, true, 80), ""},
			{"outside to internal", out, at(inner2, true, 80), ""},
		} {
			wait := patience
			if tt.want == "" {
				wait = impatience
			}
			if got := askFor(t, tt.from, p, tt.to, wait); got != tt.want {
				t.Errorf("%s, %s to %s: got answer %q, want %q", p, tt.name, tt.to, got, tt.want)
			}
		}
		// By the published port the neighbour is answered, whoever it seems to be.
		for _, to := range []string{"192.0.2.1:8080", "[2001:db8::1]:8080"} {
			if got := ask(t, peer.namespace, p, to); got == "" {
				t.Errorf("%s: the neighbour gets no answer from the published port at %s", p, to)
			}
		}
	}
	// An internal network has no way out even with a route.
	inner.do(func() error { return nil })
	inner.command("ip", "route", "add", "default", "via", mustGateway(l, "inner"))
	if got := askFor(t, inner.namespace, "tcp", "192.0.2.2:9000", impatience); got != "" {
		t.Errorf("an internal network with a route reaches the outside as %q", got)
	}
	if got := askFor(t, inner.namespace, "tcp", "192.0.2.1:8080", impatience); got != "" {
		t.Errorf("an internal network with a route reaches a published port as %q", got)
	}
}

func mustGateway(l *lab, name string) string {
	n, err := l.Get(context.Background(), name)
	if err != nil {
		l.t.Fatal(err)
	}
	return n.Subnets[0].Gateway.String()
}

// TestRelease finds nothing left of a workload.
func TestRelease(t *testing.T) {
	l := newLab(t)
	r := request("bridge")
	r.Ports = []workload.Port{{HostPort: 8080, Port: 80, Protocol: "tcp"}, {HostPort: 8081, Port: 80, Protocol: "tcp"}}
	b := l.start(r)
	if _, err := l.Attach(context.Background(), withPorts(request("bridge"), r.Ports...)); !errors.Is(err, network.ErrPortTaken) {
		t.Errorf("a second workload with the same port: got %v, want %v", err, network.ErrPortTaken)
	}
	in, err := l.Leases("bridge")
	if err != nil || len(in) != 1 {
		t.Fatalf("got %d leases, %v, want 1", len(in), err)
	}
	b.a.Close()
	for range 2 {
		if err := l.Release(context.Background(), b.id); err != nil {
			t.Fatal(err)
		}
	}
	l.wantNothing("bridge")
	if c := l.start(withPorts(request("bridge"), r.Ports...)); c.addr(true) == b.addr(true) {
		t.Errorf("%s is handed out again at once", c.addr(true))
	}
}

func withPorts(r network.Request, p ...workload.Port) network.Request {
	r.Ports = p
	return r
}

// wantNothing finds no lease, address, interface or rule of a workload.
func (l *lab) wantNothing(name string) {
	l.t.Helper()
	in, err := l.allLeases()
	if err != nil || len(in) != 0 {
		l.t.Errorf("leases are left: %v, %v", in, err)
	}
	if entries, err := os.ReadDir(l.leases(name)); err == nil && len(entries) > 0 {
		l.t.Errorf("addresses are left: %v", entries)
	}
	if got := l.elements(); len(got) > 0 {
		l.t.Errorf("rules are left: %v", got)
	}
}
