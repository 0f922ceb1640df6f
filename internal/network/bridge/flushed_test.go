package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestFlushed: what somebody flushed is seen, and comes back with the next workload
// as with the next command. Where nobody listens, as in bulkhead-network, the command
// after that tells of it.
func TestFlushed(t *testing.T) {
	l := newLab(t)
	out := outside(t)
	var warnings []string
	l.o.Warn = func(message string) { warnings = append(warnings, message) }
	serve(t, nil, ":7000")
	flushed := func(want bool, when string) {
		t.Helper()
		if got, err := l.Flushed(); err != nil || got != want {
			t.Fatalf("%s: flushed: %t, %v, want %t", when, got, err, want)
		}
	}
	flushed(false, "without a network")
	w := l.start(withPorts(request("bridge"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"}))
	serve(t, w.namespace, ":80")
	host := hostPort(w.a.Host[0], 7000)
	inet, ether := "inet "+l.t_().inet.Name, "bridge "+l.t_().ether.Name
	sweep := func() {
		if err := l.Sweep(context.Background(), func(workload.ID) bool { return true }); err != nil {
			t.Error(err)
		}
	}
	deaf := func(f func()) func() {
		return func() {
			warn := l.o.Warn
			l.o.Warn = nil
			f()
			l.o.Warn = warn
			sweep()
		}
	}
	again, leaving, made := request("bridge"), (*box)(nil), 0
	l.start(again)
	ways := map[string]func(){
		"the next workload":    func() { l.start(request("bridge")) },
		"the next command":     sweep,
		"a workload by itself": deaf(func() { l.start(request("bridge")) }),
		"a restart":            deaf(func() { l.start(again) }),
		"an end": deaf(func() {
			if err := l.Release(context.Background(), leaving.id); err != nil {
				t.Error(err)
			}
		}),
		"the first in its network": deaf(func() {
			made++
			l.start(request(l.create(network.Network{Name: fmt.Sprintf("n%d", made)}).Name))
		}),
	}
	for _, flush := range []string{
		"flush ruleset", "flush table " + inet, "flush table " + ether, "delete table " + inet,
		"flush chain " + inet + " input", "flush chain " + ether + " ipv6",
	} {
		for by, f := range ways {
			when := flush + ", " + by
			flushed(false, when)
			leaving = l.start(request("bridge"))
			command(t, "nft", flush)
			flushed(true, when)
			if o, err := l.Obstacles(context.Background()); err != nil || len(o) != 1 || !strings.Contains(o[0].Fix, "network repair") {
				t.Errorf("%s: got obstacles %+v, %v, want one that says how to repair", when, o, err)
			}
			warnings = nil
			f()
			flushed(false, "after "+when)
			if len(warnings) != 1 || !strings.Contains(warnings[0], "missing") {
				t.Errorf("%s: warnings %q, want one that says so", when, warnings)
			}
			if got := askFor(t, w.namespace, "tcp", host, impatience); got != "" {
				t.Errorf("after %s a workload reaches the host as %q", when, got)
			}
			if got := ask(t, out, "tcp", "192.0.2.1:8080"); got != "192.0.2.2" {
				t.Errorf("after %s: the published port gives answer %q", when, got)
			}
		}
	}
	command(t, "nft", "flush", "ruleset")
	if got := ask(t, w.namespace, "tcp", host); got == "" {
		t.Error("without rules a workload does not reach the host either: the test is wrong")
	}
	if err := l.Release(context.Background(), w.id); err != nil {
		t.Fatal(err)
	}
}

// TestOtherRules: what another version made gives way with the next command, of
// which nobody need know, however many rules there are. Unless somebody flushed them.
func TestOtherRules(t *testing.T) {
	l := newLab(t)
	var warnings []string
	l.o.Warn = func(message string) { warnings = append(warnings, message) }
	w := l.start(request("bridge"))
	inet := "inet " + l.t_().inet.Name
	for name, c := range map[string]struct {
		mark  []byte
		flush string
		warns bool
	}{
		"as many":                 {mark: userdata.AppendString(nil, userdata.TypeComment, "bulkhead of old")},
		"without marks":           {},
		"fewer":                   {flush: "flush chain " + inet + " output"},
		"flushed before":          {flush: "flush table " + inet, warns: true},
		"flushed of this version": {mark: l.t_().mark, flush: "flush chain " + inet + " output", warns: true},
	} {
		mark := l.t_().mark
		l.t_().mark = c.mark
		if err := l.rebuild(); err != nil {
			t.Fatal(err)
		}
		if c.flush != "" {
			command(t, "nft", c.flush)
		}
		l.t_().mark = mark
		warnings = nil
		if flushed, err := l.Flushed(); err != nil || flushed != c.warns {
			t.Errorf("%s: flushed: %t, %v, want %t", name, flushed, err, c.warns)
		}
		if err := l.SweepRules(t.Context()); err != nil {
			t.Error(err)
		}
		if (len(warnings) > 0) != c.warns {
			t.Errorf("%s: got warnings %q, want some: %t", name, warnings, c.warns)
		}
		if found, err := l.t_().look(); err != nil || found != whole {
			t.Errorf("%s: afterwards the rules are %s, %v", name, found, err)
		}
		if out := command(t, "nft", "list table "+inet); strings.Count(out, rulesMark) < 10 || strings.Contains(out, "of old") {
			t.Errorf("%s: afterwards the table is\n%s", name, out)
		}
	}
	if err := l.Release(t.Context(), w.id); err != nil {
		t.Fatal(err)
	}
}

// TestRulesMark: other rules have another mark, or those of the version before stay.
func TestRulesMark(t *testing.T) {
	made := newTables("bulkhead")
	sum := sha256.New()
	for _, s := range made.sets() {
		fmt.Fprintln(sum, s.Table.Family, s.Name, s.KeyType, s.IsMap, s.DataType)
	}
	for _, ch := range made.chains() {
		fmt.Fprintln(sum, ch.table.Family, ch.name, ch.kind, ch.priority)
		if ch.hook != nil {
			fmt.Fprintln(sum, *ch.hook)
		}
		for _, r := range ch.rules {
			fmt.Fprintln(sum, len(r))
			for _, e := range r {
				b, err := expr.Marshal(byte(ch.table.Family), e)
				if err != nil {
					t.Fatal(err)
				}
				sum.Write(b)
			}
		}
	}
	if want := "bulkhead " + hex.EncodeToString(sum.Sum(nil)[:4]); rulesMark != want {
		t.Errorf("the rules have changed: rulesMark is %q, and has to be %q", rulesMark, want)
	}
}

func BenchmarkFlushed(b *testing.B) {
	t := newTables("bulkhead-bench")
	if err := t.rebuild(nil); err != nil {
		b.Skip(err)
	}
	defer t.drop()
	for b.Loop() {
		if found, err := t.look(); err != nil || found != whole {
			b.Fatal(found, err)
		}
	}
}

// TestRepairBesideARoute: a way that the host has got since, such as a VPN's, to where a
// network in use lies is no reason to leave it as it is.
func TestRepairBesideARoute(t *testing.T) {
	l := newLab(t)
	outside(t)
	l.create(network.Network{Name: "front", Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.210.0.0/24")}}})
	w := l.start(request("front"))
	command(t, "ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.2")
	port, bridge := w.a.NICs[0].Link, w.a.bridges[0]
	command(t, "ip", "link", "set", port, "nomaster")
	if err := l.Repair(context.Background()); err != nil {
		t.Error(err)
	}
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(port)
	if err != nil {
		t.Fatal(err)
	}
	if link.Attrs().MasterIndex != br.Attrs().Index {
		t.Error("the workload's interface is not in its bridge again")
	}
	command(t, "ip", "link", "del", bridge)
	if err := l.Repair(context.Background()); !errors.Is(err, network.ErrOverlap) {
		t.Errorf("where the bridge is to be made anew: got %v, want %v", err, network.ErrOverlap)
	}
}
