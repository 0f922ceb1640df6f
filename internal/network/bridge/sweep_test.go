package bridge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func nobody(workload.ID) bool { return false }

// wantNoServer finds nothing of a network's name server.
func (l *lab) wantNoServer(when string, n *network.Network) {
	l.t.Helper()
	if _, err := dns.Find(l.server(n.Name)); !errors.Is(err, dns.ErrNotRunning) {
		l.t.Errorf("%s: a name server: got %v, want %v", when, err, dns.ErrNotRunning)
	}
	if _, err := os.Lstat(l.server(n.Name)); !errors.Is(err, os.ErrNotExist) {
		l.t.Errorf("%s: its record: got %v", when, err)
	}
	if _, err := netlink.LinkByName(serverLink(n.ID)); !isNotFound(err) {
		l.t.Errorf("%s: its interface: got %v", when, err)
	}
	if _, err := cgroup.Load(l.cgroupPath(n), cgroup.Options{}); !errors.Is(err, os.ErrNotExist) {
		l.t.Errorf("%s: its cgroup: got %v", when, err)
	}
}

// TestLeave looks at what is left between the two halves of a release.
func TestLeave(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	ctx := context.Background()
	w := l.start(request("bridge"))
	n, err := l.read("bridge")
	if err != nil {
		t.Fatal(err)
	}
	rest, err := l.Leave(ctx, w.id)
	if err != nil {
		t.Fatal(err)
	}
	if ports := l.ports(n); len(ports) > 0 {
		t.Errorf("interfaces %v are left", ports)
	}
	l.wantNothing("bridge")
	// Whoever sweeps leaves the rest to whom it belongs, and does not wait for it.
	if err := l.Sweep(ctx, nobody); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(l.server("bridge")); err != nil {
		t.Errorf("the name server's record, before the rest: %v", err)
	}
	if unlock, err := l.tryLock(); unlock != nil || err != nil {
		t.Errorf("the lock, before the rest: got %t, %v", unlock != nil, err)
	}
	if err := rest(ctx); err != nil {
		t.Fatal(err)
	}
	l.wantNoServer("after the rest", n)
	unlock, err := l.tryLock()
	if unlock == nil {
		t.Fatalf("the lock, after the rest: %v", err)
	}
	unlock()
}

// TestLeaveBrokenServer takes a workload out of a network in which another is, and
// whose name server is gone and does not start: it leaves as it would otherwise, and
// nobody waits for the attempt before it has left.
func TestLeaveBrokenServer(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	var warnings []string
	l.o.Warn = func(message string) { warnings = append(warnings, message) }
	ctx := context.Background()
	l.start(request("bridge"))
	w := l.start(request("bridge"))
	n, err := l.read("bridge")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.stopServer(ctx, n); err != nil {
		t.Fatal(err)
	}
	works := l.o.DNSProgram
	l.o.DNSProgram = "/bin/false"
	rest, err := l.Leave(ctx, w.id)
	if err != nil || len(warnings) > 0 {
		t.Errorf("got %v and warnings %q, want neither before the rest", err, warnings)
	}
	if in, err := l.LeasesOf(w.id); err != nil || len(in) > 0 {
		t.Errorf("leases: got %v, %v, want none", in, err)
	}
	if err := rest(ctx); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "name server") {
		t.Errorf("the rest: got %v and warnings %q, want one of the name server", err, warnings)
	}
	l.o.DNSProgram = works
	unlock, err := l.tryLock()
	if unlock == nil {
		t.Fatalf("the lock, after the rest: %v", err)
	}
	unlock()
}

// TestSweepServers kills who takes the last workload out of a network after each of
// its steps. One sweep afterwards leaves nothing of workload or name server.
func TestSweepServers(t *testing.T) {
	warmUp(t)
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{"/bulkhead-test-bridge"}, Wait: 5 * time.Second})
	l := newLab(t).withDNS()
	ctx := context.Background()
	for step, steps := 0, 1; step <= steps; step++ {
		r := request("n")
		l.create(network.Network{Name: "n"})
		b := l.start(r)
		b.a.Close() // its supervisor is dead
		n := l.perform(deed{Op: "release", Request: r, Step: step})
		if step == 0 {
			steps = n
		}
		when := fmt.Sprintf("step %d of %d", step, steps)
		made, err := l.read("n")
		if err != nil {
			t.Fatal(err)
		}
		if left, err := Unswept(l.root, l.Store.run, nobody); err != nil || left != (step > 0) {
			t.Errorf("%s: something to sweep: got %t, %v", when, left, err)
		}
		if err := l.Sweep(ctx, nobody); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		l.wantNothing("n")
		l.wantNoServer(when, made)
		if left, err := Unswept(l.root, l.Store.run, nobody); err != nil || left {
			t.Errorf("%s: something to sweep afterwards: got %t, %v", when, left, err)
		}
		if _, err := l.Remove(ctx, "n"); err != nil {
			t.Fatal(err)
		}
	}
}
