package dns_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestPeers has a workload in two networks, and others in one of them.
func TestPeers(t *testing.T) {
	p := newPlace(t)
	p.cfg.Peers = filepath.Join(p.cfg.Dir, "of")
	dir := func(name string) string { return filepath.Join(p.cfg.Peers, name, "leases") }
	for _, name := range []string{"lab", "back", "far"} {
		if err := os.MkdirAll(dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lease := func(in, address, id string, networks []string, names ...string) {
		t.Helper()
		b, err := json.Marshal(network.Lease{Workload: workload.ID(id), Network: in, Networks: networks, Names: names})
		if err != nil {
			t.Fatal(err)
		}
		p.cfg.LeaseDir = dir(in)
		p.put(address, b)
		p.cfg.LeaseDir = dir("lab")
	}
	both := []string{"lab", "back", "../../..", "", "back/leases", "none"}
	lease("lab", web4, "w1", both, "web")
	lease("back", "10.88.0.2", "w1", both, "web")
	lease("lab", db4, "w2", nil, "only")
	lease("back", "10.88.0.3", "w3", nil, "db")
	lease("back", "fd00:88::3", "w3", nil, "db")
	lease("far", "10.89.0.4", "w4", nil, "secret")
	lease("lab", web2, "w5", []string{"lab", "far"}, "liar") // far does not know it
	f := newFake(t, first)
	p.start(ports(first)...)
	const none = dnsmessage.RCodeNameError
	for _, c := range []struct {
		from, name string
		kind       dnsmessage.Type
		code       dnsmessage.RCode
		want       []string
	}{
		{web4, "web", a, 0, []string{web4}},
		{web4, "only", a, 0, []string{db4}},
		{web4, "db", a, 0, []string{"10.88.0.3"}},
		{web4, "db", aaaa, 0, []string{"fd00:88::3"}},
		{web4, "DB.back", a, 0, []string{"10.88.0.3"}},
		{web4, "web.back", a, 0, []string{"10.88.0.2"}},
		{web4, "gone.back", a, none, nil},
		{web4, "secret", a, none, nil},
		{web4, "3.0.88.10.in-addr.arpa", dnsmessage.TypePTR, 0, []string{"db.back."}},
		{db4, "db", a, none, nil},
		{web2, "secret", a, none, nil},
	} {
		if got := p.ask(c.from, c.name, c.kind); got.RCode != c.code || !slices.Equal(got.addresses(), c.want) {
			t.Errorf("%s asked by %s: %v %v, want %v %v", c.name, c.from, got.RCode, got.addresses(), c.code, c.want)
		}
	}
	if n := len(f.about("gone.back")); n != 0 {
		t.Error("a name of another network was asked upstream")
	}
	lease("back", "10.88.0.9", "w9", nil, "late")
	if got := p.ask(web4, "late", a).addresses(); !slices.Equal(got, []string{"10.88.0.9"}) {
		t.Errorf("who has just come into the other network: %v", got)
	}
	// The other network is removed and made anew.
	if err := os.RemoveAll(filepath.Dir(dir("back"))); err != nil {
		t.Fatal(err)
	}
	if got := p.ask(web4, "db", a); got.RCode != none {
		t.Errorf("of a network that is gone: %v", got.addresses())
	}
	if err := os.MkdirAll(dir("back"), 0o755); err != nil {
		t.Fatal(err)
	}
	lease("back", "10.88.0.2", "w1", both, "web")
	lease("back", "10.88.0.33", "w3", nil, "db")
	if got := p.ask(web4, "db", a).addresses(); !slices.Equal(got, []string{"10.88.0.33"}) {
		t.Errorf("of a network that was made anew: %v", got)
	}
	cfg := p.cfg
	cfg.Network = "other"
	if _, err := dns.Ensure(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "is not") {
		t.Errorf("leases that are none of the peers': %v", err)
	}
}
