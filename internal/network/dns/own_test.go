package dns_test

import (
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Servers of workloads' own: addresses of the test's host that are not loopback.
const own1, own2 = "198.51.100.1", "198.51.100.2"

func (p *place) ownServers() (one, two *fake) {
	p.t.Helper()
	p.ip("addr", "add", own1+"/32", "dev", "lo")
	p.ip("addr", "add", own2+"/32", "dev", "lo")
	p.t.Cleanup(func() {
		p.ip("addr", "del", own1+"/32", "dev", "lo")
		p.ip("addr", "del", own2+"/32", "dev", "lo")
	})
	return newFake(p.t, own1+":53"), newFake(p.t, own2+":53")
}

// TestOwnServers: a workload with servers of its own finds names of the network,
// and its servers are asked for it and for nobody else, the next one where one does
// not answer, over UDP and TCP; others have the network's.
func TestOwnServers(t *testing.T) {
	p := populated(t)
	one, two := p.ownServers()
	up := newFake(t, first)
	const mine4, mine6, other = "10.77.200.1", "fd00:77::1:5", "10.77.200.2"
	p.leaseWith(mine4, "mine", own1, own2)
	p.leaseWith(mine6, "mine", own1, own2)
	p.leaseWith(other, "other", own2)
	p.cfg.Own = true
	p.start(ports(first)...)
	for _, c := range []struct {
		from, name string
		asked      *fake
	}{
		{mine4, "one.example", one}, {mine6, "six.example", one}, {other, "two.example", two}, {db4, "three.example", up},
		{mine4, "big.example", one}, // by TCP
		{mine4, "broken.example", two}, {mine4, "4.3.2.1.in-addr.arpa", one},
	} {
		p.ask(c.from, c.name, a)
		for _, f := range []*fake{one, two, up} {
			if asked := len(f.about(c.name)) > 0; asked != (f == c.asked) && c.name != "broken.example" || f == c.asked && !asked {
				t.Errorf("%s from %s: asked %s: %t", c.name, c.from, f.addr, asked)
			}
		}
	}
	if got := p.ask(mine4, "one.example", a).addresses(); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("one.example: got %v", got)
	}
	if got := p.ask(mine4, "web", a).addresses(); !slices.Equal(got, []string{web4}) {
		t.Errorf("web: got %v", got)
	}
	if got := p.ask(mine4, "nobody", a); got.RCode != dnsmessage.RCodeNameError || len(one.about("nobody")) > 0 {
		t.Errorf("nobody: got %v, and asked %v", got.RCode, one.about("nobody"))
	}
	// What is recorded later counts at once, and what is gone does not any more.
	p.leaseWith(mine4, "mine", own2)
	p.ask(mine4, "later.example", a)
	if len(two.about("later.example")) != 1 || len(one.about("later.example")) != 0 {
		t.Error("another server was asked than the lease names by now")
	}
	p.lease(mine4, "mine", "mine")
	p.ask(mine4, "last.example", a)
	if len(up.about("last.example")) != 1 {
		t.Error("the network's server was not asked")
	}
}

// TestOwnServersAlone: in a network without servers, those with servers of their
// own have them, and others no name of the world.
func TestOwnServersAlone(t *testing.T) {
	p := populated(t)
	one, _ := p.ownServers()
	p.leaseWith("10.77.200.1", "mine", own1)
	p.cfg.Own = true
	p.start()
	if got := p.ask("10.77.200.1", "one.example", a).addresses(); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("got %v", got)
	}
	if got := p.ask(db4, "two.example", a); got.RCode != dnsmessage.RCodeNameError || len(one.about("two.example")) > 0 {
		t.Errorf("without: got %v, and asked %v", got.RCode, one.about("two.example"))
	}
	// Nobody's own may be the host's loopback.
	p.leaseWith("10.77.200.2", "sly", "127.0.0.1")
	if got := p.ask("10.77.200.2", "three.example", a); got.RCode != dnsmessage.RCodeNameError {
		t.Errorf("loopback: got %v", got.RCode)
	}
}
