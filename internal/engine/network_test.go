package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/attach"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// fakeNetworks are networks of which nothing is real but what is recorded: a file
// in the world for each workload that is in one. The test binary, started with a
// --run, is its bulkhead-network.
type fakeNetworks struct{ dir string }

var _ NetworkSource = fakeNetworks{}

func (f fakeNetworks) Get(_ context.Context, ref string) (*network.Network, error) {
	switch ref {
	case "front", "back", "side":
		return &network.Network{Name: ref, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Gateway: netip.MustParseAddr("10.1.0.1")}}}, nil
	case "six":
		return &network.Network{Name: ref, Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("fd00:1::/64"), Gateway: netip.MustParseAddr("fd00:1::1")}}}, nil
	case "inner":
		return &network.Network{Name: ref, Internal: true}, nil
	case "0123":
		return f.Get(context.Background(), "front")
	}
	if strings.HasPrefix(ref, "n") && ref != "nothing" {
		return &network.Network{Name: ref, Internal: true}, nil
	}
	return nil, fmt.Errorf("%w: %q", network.ErrNotFound, ref)
}

func (f fakeNetworks) file(id workload.ID) string { return filepath.Join(f.dir, "net-"+string(id)) }

func (f fakeNetworks) Rename(context.Context, network.Request) error { return nil }

func (f fakeNetworks) Release(_ context.Context, id workload.ID) error {
	if err := os.Remove(f.file(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (f fakeNetworks) Sweep(ctx context.Context, alive func(workload.ID) bool) error {
	names, err := filepath.Glob(f.file("*"))
	for _, n := range names {
		if id := workload.ID(strings.TrimPrefix(filepath.Base(n), "net-")); !alive(id) {
			err = errors.Join(err, f.Release(ctx, id))
		}
	}
	return err
}

func (f fakeNetworks) Attach() (attach.Config, error) {
	return attach.Config{Program: os.Args[0], Root: f.dir, Run: f.dir}, nil
}

// runNetworkProgram speaks as bulkhead-network does. The workload's name says what
// goes wrong.
func runNetworkProgram(dir string) error {
	f := fakeNetworks{dir}
	conn := os.NewFile(3, "socket")
	m, _, _, err := attach.Receive(conn)
	if err != nil {
		return err
	}
	if m.Release != "" && os.Remove(filepath.Join(dir, "stuck")) == nil { // that once
		return attach.Send(conn, attach.Fail(errors.New("a rule is stuck")), nil, nil)
	}
	if m.Release != "" {
		if err := f.Release(context.Background(), m.Release); err != nil {
			return attach.Send(conn, attach.Fail(err), nil, nil)
		}
		return attach.Send(conn, sendTraced(m.Trace, attach.Message{Done: true}), nil, nil)
	}
	r, asked := m.Request, m.Trace
	if r.Part == "back" && r.Name == "stays" {
		return attach.Send(conn, attach.Fail(network.Invalidf("ports are published by it")), nil, nil)
	}
	if r.Name == "port-taken" {
		return attach.Send(conn, attach.Fail(fmt.Errorf("publish port 80: %w", network.ErrPortTaken)), nil, nil)
	}
	if err := os.WriteFile(f.file(r.ID), nil, 0o600); err != nil {
		return err
	}
	if r.Name == "slow-death" { // its supervisor's; what is removed then, it makes all the same
		for end := time.Now().Add(patience); exists(f.file(r.ID)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return errors.New("the supervisor lives, or nobody cleans up after it")
			}
		}
		if err := os.WriteFile(f.file(r.ID), nil, 0o600); err != nil {
			return err
		}
	}
	got := network.Prepared{
		Nameservers: []netip.Addr{netip.MustParseAddr("10.1.0.53")}, Host: []netip.Addr{netip.MustParseAddr("10.1.0.1")}, Warnings: []string{"a firewall is in the way"},
	}
	for n, a := range r.Networks {
		address := netip.AddrFrom4([4]byte{10, 1, byte(n), 7})
		if n < len(r.Last) { // what it had before, plus one, to be seen
			address = r.Last[n].Addresses[0].Addr().Next()
		}
		got.NICs = append(got.NICs, workload.NIC{Name: fmt.Sprintf("eth%d", n), Network: a.Network, NetworkID: "id-" + a.Network, Addresses: []netip.Prefix{netip.PrefixFrom(address, 16)}})
	}
	for _, p := range r.Ports {
		if p.HostPort == 0 {
			p.HostPort = 40000
		}
		got.Ports = append(got.Ports, p)
	}
	if err := attach.Send(conn, sendTraced(asked, attach.Message{Prepared: &got}), nil, nil); err != nil || r.Part != "" {
		return err
	}
	if r.Join && r.Name == "dies" {
		return errors.New("dies")
	}
	_, _, files, err := attach.Receive(conn)
	if err != nil {
		return err
	}
	if r.Name == "no-entry" || r.Taps != (len(files) == 0) || len(files) > 1 {
		return attach.Send(conn, attach.Fail(errors.New("no entry")), nil, nil)
	}
	return attach.Send(conn, sendTraced(asked, attach.Message{Done: true}), nil, nil)
}

// networkSpec is spec in networks.
func networkSpec(name string, args ...string) workload.Spec {
	s := spec(args...)
	s.Name, s.Hostname, s.Network = name, "box", workload.NetworkBridge
	s.Networks = []workload.Attachment{{Network: "0123"}, {Network: "back"}}
	s.Ports = []workload.Port{{Port: 80, Protocol: "tcp"}}
	s.ExtraHosts = []workload.HostEntry{{Name: "out"}}
	return s
}

// needNamespaces skips where the fake boundary cannot have network namespaces.
func needNamespaces(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestNetwork(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	session, err := w.Run(ctx(t), networkSpec("web", "wait-signal", "USR1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	session.Close()
	r := w.want("web", workload.Running)
	if len(r.NICs) != 2 || r.NICs[0].Network != "front" || r.NICs[1].Name != "eth1" || len(r.Ports) != 1 || r.Ports[0].HostPort != 40000 {
		t.Errorf("got NICs %+v, ports %+v", r.NICs, r.Ports)
	}
	if r.Spec.Networks[0].Network != "front" {
		t.Errorf("the ID is recorded as %q", r.Spec.Networks[0].Network)
	}
	if len(w.said) != 1 || w.said[0] != "a firewall is in the way" {
		t.Errorf("got warnings %q", w.said)
	}
	for file, want := range map[string]string{
		"hosts":       "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.0.1\tout\n10.1.0.7\tbox web\n10.1.1.7\tbox web\n",
		"resolv.conf": "nameserver 10.1.0.53\n",
	} {
		b, err := os.ReadFile(filepath.Join(r.Dir, "files", file))
		if err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("%s: %v\ngot  %q\nwant %q", file, err, b, want)
		}
	}
	if err := w.Stop(ctx(t), "web", new(time.Duration)); err != nil {
		t.Fatal(err)
	}
	r = w.want("web", workload.Exited)
	if len(r.NICs) != 0 || len(r.Ports) != 0 {
		t.Errorf("after its end: got NICs %+v, ports %+v", r.NICs, r.Ports)
	}
	w.wantNoNetwork("stopped")
	if _, err := w.Start(ctx(t), "web", nil); err != nil {
		t.Fatal(err)
	}
	if r = w.want("web", workload.Running); r.NICs[0].Addresses[0].Addr().String() != "10.1.0.8" {
		t.Errorf("started again: got %+v: the program was not told of the address before", r.NICs)
	}
	if err := w.Remove(ctx(t), "web", true); err != nil {
		t.Error(err)
	}
	w.wantNoNetwork("removed")
}

func (w *world) wantNoNetwork(when string) {
	w.t.Helper()
	if left, _ := filepath.Glob(filepath.Join(w.dir, "world", "net-*")); len(left) > 0 {
		w.t.Errorf("%s: left in networks: %v", when, left)
	}
}

// TestNetworkRefused asks for what cannot be; nothing may be left.
func TestNetworkRefused(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	in := func(name string, change func(*workload.Spec)) workload.Spec {
		s := networkSpec(name, "exit", "0")
		change(&s)
		return s
	}
	for _, tt := range []struct {
		what string
		spec workload.Spec
		err  error
		text string
	}{
		{"unknown network", in("a", func(s *workload.Spec) { s.Networks[0].Network = "nothing" }), network.ErrNotFound, ""},
		{"twice by two names", in("a", func(s *workload.Spec) { s.Networks[1].Network = "front" }), network.ErrInvalid, ""},
		{"foreign address", in("a", func(s *workload.Spec) { s.Networks[0].IPv4 = netip.MustParseAddr("10.2.0.1") }), network.ErrInvalid, ""},
		{"ports of an internal network", in("a", func(s *workload.Spec) { s.Networks = []workload.Attachment{{Network: "inner"}} }), network.ErrInvalid, ""},
		{"user network", in("a", func(s *workload.Spec) { s.Network = workload.NetworkUser }), workload.ErrUnsupported, ""},
		{"port taken", in("port-taken", func(*workload.Spec) {}), network.ErrPortTaken, "publish port 80"},
		{"no entry", in("no-entry", func(*workload.Spec) {}), nil, "no entry"},
	} {
		_, err := w.Run(ctx(t), tt.spec, nil)
		if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v %q", tt.what, err, tt.err, tt.text)
		}
		w.wantEmpty()
	}
}

// TestNetworkWithoutPrograms creates where there are no networks at all.
func TestNetworkWithoutPrograms(t *testing.T) {
	w := newWorld(t)
	cfg := config(w.dir)
	cfg.Networks = nil
	e, err := Open(ctx(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Create(ctx(t), networkSpec("web", "exit", "0")); !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// TestNetworkRestart lets a policy bring a workload back into its networks.
func TestNetworkRestart(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	s := networkSpec("web", "exit", "3")
	s.Restart = workload.Restart{Policy: workload.RestartOnFailure, Max: 2}
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if r, err := w.Inspect(ctx(t), "web"); err != nil || time.Now().After(end) {
			t.Fatalf("got %+v, %v", r, err)
		} else if r.Status == workload.Exited {
			break
		}
	}
	st, err := w.layout.ReadState(w.want("web", workload.Exited).Spec.ID)
	if err != nil || st.Restarts != 2 || len(st.NICs) != 2 || st.NICs[0].Addresses[0].Addr().String() != "10.1.0.9" {
		b, _ := json.Marshal(st)
		t.Errorf("got %s, %v", b, err)
	}
	w.wantNoNetwork("ended")
}

// TestNetworkReleaseFails restarts a workload that is removed at its end, and that
// cannot be taken out of its networks at the first try.
func TestNetworkReleaseFails(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	s := networkSpec("web", "wait-signal", "TERM")
	s.AutoRemove = true
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "world", "stuck"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Restart(ctx(t), "web", nil, 0); err == nil || !strings.Contains(err.Error(), "a rule is stuck") {
		t.Errorf("got %v", err)
	}
	w.wantEmpty()
}

// TestNetworkSupervisorKilled kills a supervisor while the
// program that makes networks is at work.
func TestNetworkSupervisorKilled(t *testing.T) {
	needNamespaces(t)
	w := newWorld(t)
	done := make(chan error, 1)
	go func() {
		_, err := w.Run(ctx(t), networkSpec("slow-death", "pause"), nil)
		done <- err
	}()
	var pid int
	for end := time.Now().Add(patience); pid == 0; time.Sleep(time.Millisecond) {
		if made, _ := filepath.Glob(filepath.Join(w.dir, "world", "net-*")); len(made) > 0 {
			id := workload.ID(strings.TrimPrefix(filepath.Base(made[0]), "net-"))
			pid = findSupervisor(t, id)
		}
		if time.Now().After(end) {
			t.Fatal("the supervisor does not come")
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, workload.ErrSupervisorLost) {
		t.Errorf("got %v", err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if made, _ := filepath.Glob(filepath.Join(w.dir, "world", "net-*")); len(made) > 0 {
			break
		} else if time.Now().After(end) {
			t.Fatal("the program does not go on")
		}
	}
	w.reopen()
	w.wantNoNetwork("after the next command")
}

// findSupervisor looks for the process whose argument is the short ID.
func findSupervisor(t *testing.T, id workload.ID) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		b, err := os.ReadFile(file)
		if err == nil && strings.HasSuffix(string(b), "\x00"+id.Short()+"\x00") {
			var pid int
			fmt.Sscanf(file, "/proc/%d/", &pid)
			return pid
		}
	}
	return 0
}
