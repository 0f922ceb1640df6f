package dns_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Built once for all tests: bulkhead-dns, and what stands in its place.
var program, hostile string

func TestMain(m *testing.M) {
	nettest.Isolate()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// The test guest has no Go, but has the programs.
	if os.Getenv("BULKHEAD_GUEST") != "" {
		for name, path := range map[string]*string{"bulkhead-dns": &program, "hostile": &hostile} {
			built, err := exec.LookPath(name)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			*path = built
		}
		return m.Run()
	}
	if os.Getenv(crasher) != "" {
		return m.Run() // a child, which is told what to start
	}
	dir, err := os.MkdirTemp("", "bulkhead-dns-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program, hostile = filepath.Join(dir, "bulkhead-dns"), filepath.Join(dir, "hostile")
	for out, path := range map[string]string{program: "github.com/seed-f5e3b97b/bulkhead/cmd/bulkhead-dns", hostile: "./testdata/hostile"} {
		cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", out, path)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build the name server:", err)
			return 1
		}
	}
	return m.Run()
}

const idBase = 1<<30 + 1<<16

var (
	gateway4 = netip.MustParseAddr("10.77.0.1")
	gateway6 = netip.MustParseAddr("fd00:77::1")
)

// A place is a network as workloads see it: the test's own namespace stands for
// the host, and all workloads are in another, behind one interface.
type place struct {
	t   testing.TB
	cfg dns.Config
	ns  *os.File // the workloads'
}

// newPlace makes a network in which nothing runs yet.
func newPlace(t testing.TB) *place {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make networks")
	}
	leakcheck.Check(t, leakcheck.Options{})
	p := &place{t: t}
	dir := t.TempDir()
	p.cfg = dns.Config{
		Program: program, Dir: dir, LeaseDir: filepath.Join(dir, "leases"), Network: "lab",
		Subnets: []netip.Prefix{netip.PrefixFrom(gateway4, 16).Masked(), netip.PrefixFrom(gateway6, 64).Masked()},
		Listen:  []netip.Addr{gateway4, gateway6}, Device: "gw0", IDBase: idBase,
	}
	if err := os.Mkdir(p.cfg.LeaseDir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.ns = newNamespace(t)
	t.Cleanup(func() {
		p.ip("link", "del", "gw0")
	})
	p.ip("link", "add", "gw0", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.ns.Fd()))
	p.ip("link", "set", "gw0", "up")
	p.ip("addr", "add", gateway4.String()+"/16", "dev", "gw0")
	p.ip("addr", "add", gateway6.String()+"/64", "dev", "gw0", "nodad")
	p.inside(func() {
		p.ip("link", "set", "lo", "up")
		p.ip("link", "set", "eth0", "up")
		p.ip("route", "add", "local", "10.77.128.0/17", "dev", "lo") // every address of these is this machine's
		p.ip("addr", "add", "10.77.255.254/16", "dev", "eth0")
		for i := 1; i < 8; i++ {
			p.ip("addr", "add", fmt.Sprintf("fd00:77::1:%d/64", i), "dev", "eth0", "nodad")
		}
	})
	t.Cleanup(func() {
		if err := dns.Stop(context.Background(), p.cfg.Dir); err != nil { // the test's context has ended
			t.Error(err)
		}
	})
	return p
}

// newNamespace makes a network namespace with nothing in it.
func newNamespace(t testing.TB) *os.File {
	t.Helper()
	made := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // the thread ends with this
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		made <- namespace(t)
	}()
	return <-made
}

// namespace opens the network namespace that the test is in.
func namespace(t testing.TB) *os.File {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (p *place) ip(args ...string) {
	p.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		p.t.Fatalf("ip %q: %v: %s", args, err, out)
	}
}

// inside runs f on a thread in the workloads' network namespace.
func (p *place) inside(f func()) {
	p.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with this
		if err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			p.t.Error("enter the workloads' namespace:", err)
			return
		}
		f()
	}()
	<-done
}

// start starts the name server.
func (p *place) start(upstream ...netip.AddrPort) dns.Process {
	p.t.Helper()
	p.cfg.Upstream = upstream
	s, err := dns.Ensure(p.t.Context(), p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// lease gives an address to a workload, as package network does.
func (p *place) lease(address, id string, names ...string) {
	p.t.Helper()
	b, err := json.Marshal(network.Lease{Workload: workload.ID(id), Network: p.cfg.Network, Names: names})
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(address, b)
}

// put writes a file of the leases and then gives it its name.
func (p *place) put(address string, b []byte) {
	p.t.Helper()
	tmp := filepath.Join(p.cfg.LeaseDir, ".tmp")
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(p.cfg.LeaseDir, address)); err != nil {
		p.t.Fatal(err)
	}
}

// leaseWith gives one to a workload with name servers of its own.
func (p *place) leaseWith(address, id string, servers ...string) {
	p.t.Helper()
	l := network.Lease{Workload: workload.ID(id), Network: p.cfg.Network, Names: []string{id}}
	for _, s := range servers {
		l.Upstream = append(l.Upstream, netip.MustParseAddr(s))
	}
	b, err := json.Marshal(l)
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(address, b)
}

func (p *place) release(address string) {
	p.t.Helper()
	if err := os.Remove(filepath.Join(p.cfg.LeaseDir, address)); err != nil {
		p.t.Fatal(err)
	}
}

// dial connects from a workload's address to the name server.
func (p *place) dial(proto, from string) net.Conn {
	p.t.Helper()
	local, gateway := netip.MustParseAddr(from), gateway4
	if local.Is6() {
		gateway = gateway6
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	if proto == "tcp" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	var c net.Conn
	var err error
	p.inside(func() { c, err = d.DialContext(p.t.Context(), proto, netip.AddrPortFrom(gateway, dns.Port).String()) })
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}
