package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func oneNIC() protocol.NIC {
	return protocol.NIC{Device: "02:00:00:00:00:01", NIC: workload.NIC{
		Name: "eth0", MAC: "02:42:ac:11:00:02", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")},
	}}
}

// TestNICs: they are attached to the workload's namespace before it starts, and
// what cannot be attached leaves no workload.
func TestNICs(t *testing.T) {
	f := newFakeAgent(t)
	c := client.OverSession(link(t, f.Agent))
	req := spec("pause")
	req.NICs = []protocol.NIC{oneNIC()}
	in, err := c.Create(limited(t), req, boundary.Stdio{}, nil)
	if err != nil {
		t.Skipf("the fake has no network namespace here: %v", err)
	}
	f.m.mu.Lock()
	got := fmt.Sprint(f.m.nics, f.m.namespaces)
	f.m.noNICs = errors.New("no such device")
	f.m.mu.Unlock()
	if want := fmt.Sprint(req.NICs, []bool{true}); got != want {
		t.Errorf("attached %s, want %s", got, want)
	}
	if err := in.Delete(limited(t)); err != nil {
		t.Error(err)
	}
	req.Spec.ID = workload.NewID()
	if _, err := c.Create(limited(t), req, boundary.Stdio{}, nil); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("got %v", err)
	}
	f.empty(t)
}

// TestDevicesComeBackOneByOne: a device that has come back is not taken again when
// the others are, as it may be another workload's by then.
func TestDevicesComeBackOneByOne(t *testing.T) {
	f := newFakeAgent(t)
	first, second := oneNIC(), oneNIC()
	second.Name, second.Device = "eth1", "02:00:00:00:00:02"
	e := &entry{a: f.Agent, gone: make(chan struct{}), nics: []protocol.NIC{second, first}}
	f.m.nics, f.m.stuck = slices.Clone(e.nics), second.Device
	if err := e.disconnect(); err == nil {
		t.Error("the device that does not come back is no error")
	}
	if got := f.m.Devices(); !slices.Equal(got, []string{second.Device}) {
		t.Errorf("still away are %v", got)
	}
	f.m.nics, f.m.stuck = append(f.m.nics, first), "" // another's now
	if err := e.disconnect(); err != nil {
		t.Error(err)
	}
	if got := f.m.Devices(); !slices.Equal(got, []string{first.Device}) {
		t.Errorf("then there are %v", got)
	}
}

// TestLateRewire: what the host no longer waits for does not happen: it may have
// given the device to somebody else.
func TestLateRewire(t *testing.T) {
	f := newFakeAgent(t)
	e := &entry{a: f.Agent, gone: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.rewire(ctx, &protocol.Rewire{Add: []protocol.NIC{oneNIC()}}); !errors.Is(err, context.Canceled) {
		t.Errorf("rewire: got %v", err)
	}
	if err := e.attach(ctx, []protocol.NIC{oneNIC()}); err == nil {
		t.Error("attached late")
	}
	if got := f.m.Devices(); len(got) > 0 {
		t.Errorf("attached %v", got)
	}
}

// TestRewire: interfaces come to a workload that runs and leave it, its files are
// changed, and what cannot be attached leaves nothing.
func TestRewire(t *testing.T) {
	f := newFakeAgent(t)
	c := client.OverSession(link(t, f.Agent))
	req := spec("pause")
	req.NICs = []protocol.NIC{oneNIC()}
	req.Files = map[string][]byte{"/etc/hosts": []byte("192.0.2.2\tweb\n")}
	in, err := c.Create(limited(t), req, boundary.Stdio{}, nil)
	if err != nil {
		t.Skipf("the fake has no network namespace here: %v", err)
	}
	if err := in.Start(limited(t)); err != nil {
		t.Fatal(err)
	}
	hosts := f.find(req.Spec.ID).files["/etc/hosts"]
	f2 := oneNIC()
	f2.Name, f2.Device = "eth1", "02:00:00:00:00:02"
	edit := workload.FileEdit{Old: req.Files["/etc/hosts"], New: []byte("198.51.100.2\tweb\n"), Lines: true}
	if err := in.Rewire(limited(t), protocol.Rewire{
		Add: []protocol.NIC{f2}, Remove: req.NICs, Route: []protocol.NIC{f2},
		Files: map[string]workload.FileEdit{"/etc/hosts": edit, "/etc/passwd": edit},
	}); err != nil {
		t.Fatal(err)
	}
	f.m.mu.Lock()
	got := fmt.Sprint(f.m.nics, f.m.routes)
	f.m.noNICs = errors.New("no such device")
	f.m.mu.Unlock()
	if want := fmt.Sprint([]protocol.NIC{f2}, []protocol.NIC{f2}); got != want {
		t.Errorf("attached and routed %s, want %s", got, want)
	}
	if b, err := os.ReadFile(hosts); err != nil || string(b) != string(edit.New) {
		t.Errorf("hosts: got %q, %v", b, err)
	}
	if err := in.Rewire(limited(t), protocol.Rewire{Add: []protocol.NIC{oneNIC()}}); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("got %v", err)
	}
	f2.Name = "../all"
	for _, w := range []protocol.Rewire{{Add: []protocol.NIC{f2}}, {Remove: []protocol.NIC{f2}}, {Route: []protocol.NIC{f2}}} {
		if err := in.Rewire(limited(t), w); err == nil || !strings.Contains(err.Error(), "name") {
			t.Errorf("%+v: got %v", w, err)
		}
	}
	if err := in.Delete(limited(t)); err != nil {
		t.Error(err)
	}
	if err := in.Rewire(limited(t), protocol.Rewire{}); !errors.Is(err, workload.ErrNotFound) {
		t.Errorf("after its end: got %v", err)
	}
	f.m.noNICs = nil
	f.empty(t)
}

// TestNICsRefused: nothing that is not checked becomes a path or a name.
func TestNICsRefused(t *testing.T) {
	for name, change := range map[string]func(*[]protocol.NIC){
		"nine": func(n *[]protocol.NIC) {
			*n = make([]protocol.NIC, 9)
		},
		"a path":                    func(n *[]protocol.NIC) { (*n)[0].Name = "../all" },
		"no name":                   func(n *[]protocol.NIC) { (*n)[0].Name = "" },
		"dots":                      func(n *[]protocol.NIC) { (*n)[0].Name = ".." },
		"loopback":                  func(n *[]protocol.NIC) { (*n)[0].Name = "lo" },
		"a long name":               func(n *[]protocol.NIC) { (*n)[0].Name = strings.Repeat("x", 16) },
		"a pattern":                 func(n *[]protocol.NIC) { (*n)[0].Name = "eth%d" },
		"no MAC":                    func(n *[]protocol.NIC) { (*n)[0].MAC = "" },
		"a group's MAC":             func(n *[]protocol.NIC) { (*n)[0].MAC = "01:00:5e:00:00:01" },
		"no device":                 func(n *[]protocol.NIC) { (*n)[0].Device = "eth0" },
		"two of a name":             func(n *[]protocol.NIC) { *n = append(*n, oneNIC()); (*n)[1].Device = "02:00:00:00:00:02" },
		"two of a device":           func(n *[]protocol.NIC) { *n = append(*n, oneNIC()); (*n)[1].Name = "eth1" },
		"a small MTU":               func(n *[]protocol.NIC) { (*n)[0].MTU = 0 },
		"a large MTU":               func(n *[]protocol.NIC) { (*n)[0].MTU = 65536 },
		"no address":                func(n *[]protocol.NIC) { (*n)[0].Addresses = make([]netip.Prefix, 1) },
		"many addresses":            func(n *[]protocol.NIC) { (*n)[0].Addresses = make([]netip.Prefix, 17) },
		"no gateway":                func(n *[]protocol.NIC) { (*n)[0].Gateways = make([]netip.Addr, 1) },
		"a gateway of an interface": func(n *[]protocol.NIC) { (*n)[0].Gateways = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} },
	} {
		c := spec("pause")
		c.NICs = []protocol.NIC{oneNIC()}
		if err := checkCreate(&c); err != nil {
			t.Fatal(err)
		}
		change(&c.NICs)
		if err := checkCreate(&c); !errors.Is(err, protocol.ErrProtocol) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
