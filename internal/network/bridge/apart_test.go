package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/fsuid"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestApart sends from the host, as the process of a user network does, to
// workloads in networks: only a published port is reached.
func TestApart(t *testing.T) {
	l := newLab(t)
	const user = 0x70ffffff
	id := workload.NewID()
	// Before there are any tables, which is for most.
	if err := l.KeepApart(t.Context(), id, user); err != nil {
		t.Fatal(err)
	}
	l.create(network.Network{Name: "inner", Internal: true})
	web := l.start(withPorts(request("bridge"), workload.Port{HostPort: 8080, Port: 80, Protocol: "udp"}))
	inner := l.start(request("inner"))
	at := func(a netip.Addr) string { return netip.AddrPortFrom(a, 80).String() }
	reaches := func(as int, b *box, to string, within time.Duration) bool {
		t.Helper()
		in := b.packetSocket("eth0")
		err := fsuid.Do(as, as, func() error {
			a := netip.MustParseAddrPort(to)
			domain, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(a.Port()), Addr: as4(a.Addr())})
			if a.Addr().Is6() {
				domain, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
			}
			fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Sendto(fd, mark, 0, sa); err != nil && !errors.Is(err, unix.EPERM) {
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return sees(in, mark, within)
	}
	published := net.JoinHostPort("127.0.0.1", "8080")
	check := func(when string) {
		t.Helper()
		for _, b := range []*box{web, inner} {
			for _, four := range []bool{true, false} {
				if b == inner && !four {
					continue
				}
				if reaches(user, b, at(b.addr(four)), impatience) {
					t.Errorf("%s: the process of a user network reaches %s", when, b.addr(four))
				}
			}
		}
		if !reaches(user, web, published, patience) {
			t.Errorf("%s: a published port is not reached", when)
		}
		if !reaches(user+1, web, at(web.addr(true)), patience) {
			t.Errorf("%s: nobody reaches it: the test is wrong", when)
		}
	}
	check("from the start")
	command(t, "nft", "flush", "ruleset")
	if err := l.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("repaired")
	if err := l.KeepApart(t.Context(), id, user); err != nil {
		t.Fatal(err)
	}
	check("in its next life")
	// Somebody's rule keeps its packets from connection tracking.
	command(t, "nft", fmt.Sprintf("add table inet quick; add chain inet quick o { type filter hook output priority raw; }; add rule inet quick o meta skuid %d notrack", user))
	if reaches(user, web, at(web.addr(true)), impatience) {
		t.Error("what is not tracked reaches a workload")
	}
	command(t, "nft", "delete table inet quick")
	// It stays so until its process has ended.
	record := filepath.Join(l.apart(), string(id))
	alive := errors.New("the process lives")
	ended := func(of workload.ID) error {
		if unlock, err := l.tryLock(); unlock != nil {
			unlock()
		} else if alive != nil {
			t.Errorf("others wait while the process is to end: the lock: %v", err)
		}
		if reaches(user, web, at(web.addr(true)), impatience) {
			t.Error("the user ID is apart no more while its process lives")
		}
		if of != id {
			t.Errorf("workload %s is to end", of)
		}
		return alive
	}
	l.o.EndApart = func(_ context.Context, of workload.ID) error { return ended(of) }
	for name, release := range map[string]func() error{
		"Sweep":   func() error { return l.Sweep(t.Context(), func(other workload.ID) bool { return other != id }) },
		"Release": func() error { return l.Release(t.Context(), id) },
	} {
		if err := release(); !errors.Is(err, alive) {
			t.Errorf("%s: got %v, want %v", name, err, alive)
		}
		if _, err := os.Lstat(record); err != nil {
			t.Errorf("%s: the record: %v", name, err)
		}
	}
	check("while its process lives")
	alive = nil
	if err := l.Sweep(t.Context(), func(other workload.ID) bool { return other != id }); err != nil {
		t.Fatal(err)
	}
	if !reaches(user, web, at(web.addr(true)), patience) {
		t.Error("the user ID stays apart after its workload")
	}
	if _, err := os.Lstat(record); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the record stays: %v", err)
	}
	if err := l.KeepApart(t.Context(), id, 0); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("root: got %v", err)
	}
}
