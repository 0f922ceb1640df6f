package bridge

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestDamagedRecord damages records of networks, as a power cut or a person may.
// Other networks go on, the damaged one can be removed, and the default one is made
// anew.
func TestDamagedRecord(t *testing.T) {
	l := newLab(t)
	ctx := context.Background()
	var said []string
	l.o.Warn = func(m string) { said = append(said, m) }
	good := l.create(network.Network{Name: "good"})
	damage := func(name, content string) (restore func()) {
		t.Helper()
		before, err := os.ReadFile(l.record(name))
		if err == nil {
			err = os.WriteFile(l.record(name), []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(l.record(name), before, 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	for _, content := range []string{"", strings.Repeat("\x00", 512), "{", "{}"} {
		l.create(network.Network{Name: "bad"})
		damage("bad", content)
		all, err := l.List(ctx)
		if err != nil || !slices.EqualFunc(all, []string{"bridge", "good"}, func(n network.Network, name string) bool { return n.Name == name }) {
			t.Fatalf("%q: list: got %+v, %v", content, all, err)
		}
		if n, err := l.Get(ctx, good.ID[:20]); err != nil || n.Name != "good" {
			t.Errorf("%q: another by its ID: got %+v, %v", content, n, err)
		}
		if _, err := l.Get(ctx, "bad"); !errors.Is(err, network.ErrDamaged) {
			t.Errorf("%q: got %v, want %v", content, err, network.ErrDamaged)
		}
		if _, err := l.Attach(ctx, request("bad")); !errors.Is(err, network.ErrDamaged) {
			t.Errorf("%q: attach: got %v, want %v", content, err, network.ErrDamaged)
		}
		if _, err := l.Create(ctx, network.Network{Name: "bad"}); !errors.Is(err, network.ErrExists) {
			t.Errorf("%q: make it again: got %v, want %v", content, err, network.ErrExists)
		}
		b := l.start(request("good"))
		if err := l.Repair(ctx); err != nil {
			t.Errorf("%q: repair: %v", content, err)
		}
		if err := l.Release(ctx, b.id); err != nil {
			t.Errorf("%q: release: %v", content, err)
		}
		if _, err := l.Remove(ctx, "bad"); err != nil {
			t.Errorf("%q: remove: %v", content, err)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "network bad is left out") {
		t.Errorf("got warnings %q, want one", said)
	}
	before, err := l.read(workload.DefaultNetwork)
	if err != nil {
		t.Fatal(err)
	}
	damage(workload.DefaultNetwork, "")
	b := l.start(request(workload.DefaultNetwork))
	if after, err := l.read(workload.DefaultNetwork); err != nil || after.ID == before.ID {
		t.Errorf("the default network: got %+v, %v", after, err)
	}
	// Rules are not made anew without those for who is in it.
	restore := damage(workload.DefaultNetwork, "{")
	if err := l.Repair(ctx); !errors.Is(err, network.ErrDamaged) {
		t.Errorf("with a workload in it: repair: got %v, want %v", err, network.ErrDamaged)
	}
	if _, err := l.Get(ctx, workload.DefaultNetwork); !errors.Is(err, network.ErrDamaged) {
		t.Errorf("with a workload in it: got %v, want %v", err, network.ErrDamaged)
	}
	restore()
	if err := l.Release(ctx, b.id); err != nil {
		t.Error(err)
	}
}

// TestDamagedLease damages what is recorded of a workload in two networks. Others go
// on, what it sends stops, and it can be taken out and started again.
func TestDamagedLease(t *testing.T) {
	ctx := context.Background()
	for _, content := range []string{"", strings.Repeat("\x00", 512), `{"workload":"x"}`} {
		l := newLab(t)
		var said []string
		l.o.Warn = func(m string) { said = append(said, m) }
		l.create(network.Network{Name: "n"})
		l.create(network.Network{Name: "m"})
		other := l.start(request("n"))
		serve(t, other.namespace, ":80")
		r := withPorts(request("n", "m"), workload.Port{HostPort: 8080, Port: 80, Protocol: "tcp"}, workload.Port{HostPort: 8080, Port: 80, Protocol: "udp"})
		b := l.start(r)
		serve(t, b.namespace, ":80")
		b.a.Close()
		b.a.Reserved = nil
		if err := os.WriteFile(l.member(r.ID, "n"), []byte(content), leaseMode); err != nil {
			t.Fatal(err)
		}
		third := l.start(request("n"))
		if third.addr(true) == b.addr(true) {
			t.Errorf("%q: another has its address", content)
		}
		if got := ask(t, third.namespace, "tcp", hostPort(other.addr(true), 80)); got == "" {
			t.Errorf("%q: others do not reach each other", content)
		}
		if err := l.Repair(ctx); err != nil {
			t.Errorf("%q: repair: %v", content, err)
		}
		if got := askFor(t, b.namespace, "tcp", hostPort(other.addr(true), 80), impatience); got != "" {
			t.Errorf("%q: it sends as nobody knows whom", content)
		}
		if len(said) != 1 || !strings.Contains(said[0], r.ID.Short()) {
			t.Errorf("%q: got warnings %q, want one", content, said)
		}
		if err := l.Rename(ctx, r); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("%q: rename: got %v, want %v", content, err, network.ErrInvalid)
		}
		part := r
		part.Networks, part.Part = r.Networks[:1], "m"
		if _, err := l.Part(ctx, part, nil); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("%q: leave the other network: got %v, want %v", content, err, network.ErrInvalid)
		}
		again := l.start(r)
		serve(t, again.namespace, ":80")
		if got := ask(t, nil, "tcp", "127.0.0.1:8080"); got == "" {
			t.Errorf("%q: started again: its port does not work", content)
		}
		again.a.Close()
		if err := os.WriteFile(l.member(r.ID, "n"), []byte(content), leaseMode); err != nil {
			t.Fatal(err)
		}
		for _, id := range []workload.ID{r.ID, other.id, third.id} {
			if err := l.Release(ctx, id); err != nil {
				t.Errorf("%q: release: %v", content, err)
			}
		}
		l.wantNothing("n")
		l.wantNothing("m")
		if ports := l.ports(mustRead(t, l, "n")); len(ports) > 0 {
			t.Errorf("%q: interfaces %v are left", content, ports)
		}
	}
}
