package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/attach"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/user"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

const asProgram = "BULKHEAD_NETWORK_PROGRAM"

// TestMain is the program, too: the test binary stands in for it.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Unsetenv(asProgram)
		main()
		os.Exit(0)
	}
	nettest.Isolate()
	os.Exit(m.Run())
}

func config(t *testing.T) attach.Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make networks")
	}
	t.Setenv(asProgram, "1")
	dir := t.TempDir()
	c := attach.Config{Program: "/proc/self/exe", Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run")}
	t.Cleanup(func() {
		s, err := bridge.Open(c.Root, c.Run, bridge.Options{})
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.List(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Sweep(context.Background(), func(workload.ID) bool { return false }); err != nil {
			t.Error(err)
		}
		for _, n := range all {
			if _, err := s.Remove(context.Background(), n.Name); err != nil && !errors.Is(err, network.ErrDefault) {
				t.Error(err)
			}
		}
	})
	return c
}

// newNamespace makes a network namespace and, with f, looks into it.
func newNamespace(t *testing.T) (ns *os.File, in func(f func() error) error) {
	t.Helper()
	calls, errs := make(chan func() error), make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := syscall.Unshare(syscall.CLONE_NEWNET)
		if err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
		errs <- err
		for f := range calls {
			errs <- f()
		}
	}()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(calls); ns.Close() })
	return ns, func(f func() error) error { calls <- f; return <-errs }
}

func TestAttach(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	c := config(t)
	r := network.Request{ID: workload.NewID(), Name: "web", Networks: []workload.Attachment{{Network: "bridge"}}}
	for p := uint16(1); p <= 300; p++ { // more descriptors than one message takes
		r.Ports = append(r.Ports, workload.Port{Port: p, Protocol: "udp"})
	}
	ctx := context.Background()
	a, err := attach.Start(ctx, c, r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, f := range a.Reserved {
			f.Close()
		}
	}()
	if len(a.NICs) != 1 || len(a.Ports) != 300 || len(a.Reserved) < 300 || a.Ports[299].HostPort == 0 {
		t.Fatalf("got %d interfaces, %d ports, %d reserved", len(a.NICs), len(a.Ports), len(a.Reserved))
	}
	if l, err := net.ListenPacket("udp", fmt.Sprintf(":%d", a.Ports[299].HostPort)); err == nil {
		l.Close()
		t.Error("a reserved port can be had by others")
	}
	ns, in := newNamespace(t)
	if err := a.Enter(ctx, ns); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	err = in(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := i.Addrs()
		if err != nil || len(addrs) == 0 || addrs[0].String() != a.NICs[0].Addresses[0].String() {
			return fmt.Errorf("got addresses %v, %v, want %v", addrs, err, a.NICs[0].Addresses)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := attach.Release(ctx, c, r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := in(func() error { _, err := net.InterfaceByName("eth0"); return err }); err == nil {
		t.Error("the interface is still there")
	}
}

func TestTaps(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	c := config(t)
	r := network.Request{ID: workload.NewID(), Name: "vm", Networks: []workload.Attachment{{Network: "bridge"}}, Taps: true, Owner: 12345}
	recorder := trace.New("supervisor")
	ctx := trace.With(context.Background(), recorder)
	a, err := attach.Start(ctx, c, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range recorder.Take() {
		if p.Name == "name server awaited" {
			t.Error("taps come after the name server")
		}
	}
	if len(a.Taps) != 1 {
		t.Fatalf("got %d taps", len(a.Taps))
	}
	if err := a.Enter(ctx, nil); err != nil {
		t.Error(err)
	}
	// When the server itself is ready is told with whatever answer is next.
	got := slices.DeleteFunc(recorder.Take(), func(p trace.Phase) bool { return p.Name == "name server ready" })
	if len(got) != 1 || got[0].Name != "name server awaited" || got[0].By != "network" {
		t.Errorf("with taps Enter does %+v", got)
	}
	a.Close()
	link := a.NICs[0].Link
	if _, err := net.InterfaceByName(link); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile("/sys/class/net/" + link + "/owner")
	if err == nil && strings.TrimSpace(string(b)) != "12345" {
		t.Errorf("the tap is of user %s", b)
	}
	a.Taps[0].Close()
	if _, err := net.InterfaceByName(link); err == nil {
		t.Error("the tap is there without its descriptor")
	}
	if err := attach.Release(context.Background(), c, r.ID); err != nil {
		t.Fatal(err)
	}
}

// TestJoinAndPart moves a workload that runs from one network to another, and its
// port with it.
func TestJoinAndPart(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	c := config(t)
	ctx := context.Background()
	s, err := bridge.Open(c.Root, c.Run, bridge.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, network.Network{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	r := network.Request{
		ID: workload.NewID(), Name: "web", Networks: []workload.Attachment{{Network: "bridge"}},
		Ports: []workload.Port{{Port: 80, Protocol: "tcp"}},
	}
	ns, in := newNamespace(t)
	enter := func(r network.Request) *attach.Attachment {
		a, err := attach.Start(ctx, c, r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, f := range a.Reserved {
				f.Close()
			}
		})
		if err := errors.Join(a.Enter(ctx, ns), a.Close()); err != nil {
			t.Fatal(err)
		}
		return a
	}
	first := enter(r)
	join := r
	join.Join, join.Networks = true, append(join.Networks, workload.Attachment{Network: "other"})
	both := enter(join)
	if len(both.NICs) != 2 || len(both.Ports) != 1 || both.Ports[0] != first.Ports[0] {
		t.Errorf("got %+v", both.Prepared)
	}
	part := r
	part.Part, part.Networks = "bridge", join.Networks[1:]
	got, err := attach.Part(ctx, c, part, ns)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.NICs) != 1 || got.NICs[0].Name != "eth1" || len(got.NICs[0].Gateways) != 1 || len(got.Ports) != 1 || got.Ports[0] != first.Ports[0] {
		t.Errorf("got %+v", got.Prepared)
	}
	if err := in(func() error { _, err := net.InterfaceByName("eth1"); return err }); err != nil {
		t.Error(err)
	}
	if err := in(func() error { _, err := net.InterfaceByName("eth0"); return err }); err == nil {
		t.Error("the first interface is still there")
	}
	part.Part, part.Networks = "other", nil
	if _, err := attach.Part(ctx, c, part, nil); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("with a port: got %v", err)
	}
	if err := attach.Release(ctx, c, r.ID); err != nil {
		t.Fatal(err)
	}
}

// TestUser takes a machine out of its user network: its process is ended first, and
// then the rule goes that kept it out of all other networks.
func TestUser(t *testing.T) {
	c := config(t)
	if err := user.Check(); !errors.Is(err, workload.ErrUnsupported) {
		t.Fatalf("a host without a way out: got %v", err)
	} else if _, err := exec.LookPath("passt"); err != nil {
		t.Skip("needs the program passt")
	}
	for _, args := range []string{"link add up0 type veth peer name out0", "addr add 192.0.2.1/24 dev up0", "link set up0 up", "link set out0 up", "route add default via 192.0.2.2"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "link", "del", "up0").CombinedOutput(); err != nil {
			t.Errorf("remove the uplink: %v: %s", err, out)
		}
	})
	c.CgroupParent = fmt.Sprintf("/bulkhead-network-test-%d", os.Getpid())
	ctx := context.Background()
	r := network.Request{ID: workload.NewID(), Name: "vm", User: true, Taps: true, Helper: 1879113726}
	a, err := attach.Start(ctx, c, r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Taps[0].Close()
	t.Cleanup(func() {
		if err := (user.Options{CgroupParent: c.CgroupParent}).Release(ctx, r.ID); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(a.Enter(ctx, nil), a.Close()); err != nil {
		t.Fatal(err)
	}
	cgroups := func() []string {
		var found []string
		for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			in, err := filepath.Glob(pattern + c.CgroupParent + "/user-" + r.ID.Short())
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, in...)
		}
		return found
	}
	record := filepath.Join(c.Run, "networks", "apart", string(r.ID))
	if _, err := os.Stat(record); err != nil || len(cgroups()) == 0 {
		t.Fatalf("it is in the cgroups %q, its record: %v", cgroups(), err)
	}
	if err := attach.Release(ctx, c, r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(record); !errors.Is(err, os.ErrNotExist) || len(cgroups()) > 0 {
		t.Errorf("left: cgroups %q, its record: %v", cgroups(), err)
	}
}

// TestTrace: the program's phases are parts of what its callers wait for.
func TestTrace(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	c := config(t)
	recorder := trace.New("supervisor")
	in := func(name string, f func(context.Context) error) string {
		t.Helper()
		ctx, o := trace.Begin(trace.With(context.Background(), recorder), name)
		if err := f(ctx); err != nil {
			t.Fatal(err)
		}
		o.End()
		var got []string
		for _, p := range recorder.Take() {
			if p.By == "network" && p.Parent == 1 {
				got = append(got, p.Name)
			}
		}
		slices.Sort(got)
		return strings.Join(got, ", ")
	}
	r := network.Request{ID: workload.NewID(), Name: "web", Networks: []workload.Attachment{{Network: "bridge"}}}
	var a *attach.Attachment
	got := in("start", func(ctx context.Context) (err error) {
		a, err = attach.Start(ctx, c, r)
		return err
	})
	want := "addresses and ports taken, bridge and firewall looked at, lock taken, name server ready, networks opened, other firewalls looked at, program loaded, rules added"
	if got = strings.ReplaceAll(got, "name server ready, ", ""); got != strings.ReplaceAll(want, "name server ready, ", "") { // it may take longer
		t.Errorf("prepare: got %s\nwant %s", got, want)
	}
	ns, _ := newNamespace(t)
	got = in("enter", func(ctx context.Context) error { return a.Enter(ctx, ns) })
	if want := "addresses and routes set, interfaces made, name server awaited"; got != want {
		t.Errorf("enter: got %s\nwant %s", got, want)
	}
	a.Close()
	got = in("release", func(ctx context.Context) error { return attach.Release(ctx, c, r.ID) })
	if want := "interfaces removed, lock taken, name server ended, networks opened, program loaded, rules removed"; got != want {
		t.Errorf("release: got %s\nwant %s", got, want)
	}
}

func TestErrors(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	c := config(t)
	ctx := context.Background()
	_, err := attach.Start(ctx, c, network.Request{ID: workload.NewID(), Networks: []workload.Attachment{{Network: "nowhere"}}})
	if !errors.Is(err, network.ErrNotFound) || !strings.Contains(err.Error(), `"nowhere"`) {
		t.Errorf("unknown network: got %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := workload.Port{HostPort: uint16(l.Addr().(*net.TCPAddr).Port), Port: 80, Protocol: "tcp"}
	_, err = attach.Start(ctx, c, network.Request{ID: workload.NewID(), Networks: []workload.Attachment{{Network: "bridge"}}, Ports: []workload.Port{p}})
	if !errors.Is(err, network.ErrPortTaken) {
		t.Errorf("port taken: got %v", err)
	}
	c.Root = "relative"
	_, err = attach.Start(ctx, c, network.Request{})
	if err == nil || !strings.Contains(err.Error(), "must be absolute") {
		t.Errorf("a program that dies: got %v, want what it complained about", err)
	}
	c.Program = "/nowhere/bulkhead-network"
	if _, err := attach.Start(ctx, c, network.Request{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: got %v", err)
	}
}

// TestReleaseAtOnce takes a workload out of its networks by the program that took it
// in, and by another one where that has been killed.
func TestReleaseAtOnce(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%t", killed), func(t *testing.T) {
			leakcheck.Check(t, leakcheck.Options{})
			c := config(t)
			for tries := 1; ; tries++ {
				err := releaseAtOnce(t, c, killed)
				if err == nil {
					return
				}
				// A machine that is busy may have let the moment pass.
				if killed || tries == 20 {
					t.Fatal(err)
				}
			}
		})
	}
}

func releaseAtOnce(t *testing.T, c attach.Config, killed bool) error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := network.Request{ID: workload.NewID(), Name: "web", Networks: []workload.Attachment{{Network: "bridge"}}}
	a, err := attach.Start(ctx, c, r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ns, in := newNamespace(t)
	if err := a.Enter(ctx, ns); err != nil {
		t.Fatal(err)
	}
	cancel() // it was for the beginning only
	then := c
	if killed {
		for _, pid := range children(t) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	} else {
		then.Program = "/nowhere/bulkhead-network"
	}
	if err := a.Release(context.Background(), then); err != nil {
		return errors.Join(err, attach.Release(context.Background(), c, r.ID))
	}
	if err := in(func() error { _, err := net.InterfaceByName("eth0"); return err }); err == nil {
		t.Error("the interface is still there")
	}
	s, err := bridge.Open(c.Root, c.Run, bridge.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if leases, err := s.LeasesOf(r.ID); err != nil || len(leases) > 0 {
		t.Errorf("leases are left: %v, %v", leases, err)
	}
	return nil
}

// children are the processes that this one has started.
func children(t *testing.T) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, _ := os.ReadFile(f) // of a thread that may have ended
		for _, field := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		t.Fatal("no program runs")
	}
	return pids
}
