package bridge

import (
	"context"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestFlushed: what somebody flushed is seen, and comes back with the next workload
// as with the next command.
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
	ways := map[string]func(){
		"the next workload": func() { l.start(request("bridge")) },
		"the next command": func() {
			if err := l.Sweep(context.Background(), func(workload.ID) bool { return true }); err != nil {
				t.Error(err)
			}
		},
	}
	for _, flush := range []string{
		"flush ruleset", "flush table " + inet, "flush table " + ether, "delete table " + inet,
		"flush chain " + inet + " input", "flush chain " + ether + " ipv6",
	} {
		for by, f := range ways {
			when := flush + ", " + by
			flushed(false, when)
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

func BenchmarkFlushed(b *testing.B) {
	t := newTables("bulkhead-bench")
	if err := t.rebuild(nil); err != nil {
		b.Skip(err)
	}
	defer t.drop()
	for b.Loop() {
		if complete, err := t.complete(); err != nil || !complete {
			b.Fatal(complete, err)
		}
	}
}
