package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// interfaces are n of them, and something for descriptors.
func interfaces(t *testing.T, n int) (nics []workload.NIC, taps []*os.File) {
	for i := range n {
		nics = append(nics, workload.NIC{Name: fmt.Sprintf("eth%d", i), MAC: fmt.Sprintf("02:42:00:00:00:%02x", i), MTU: 1500, Link: "tap", Network: "bridge"})
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		taps = append(taps, f)
	}
	return nics, taps
}

// TestTenantNICs: a tenant's workload gets devices of the machine, by their own
// addresses, and gives them back whatever happens.
func TestTenantNICs(t *testing.T) {
	refuse := false
	h := &scripted{devices: 3, answer: func(req *protocol.Request, conn net.Conn) {
		if req.Op == protocol.OpCreate && refuse {
			reply(conn, workload.ErrNotFound)
			return
		}
		reply(conn, nil)
	}}
	b, s, p := inTenant(t, h)
	p.NICs, p.Taps = interfaces(t, 2)
	in, err := b.Create(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range h.create.NICs {
		want := p.NICs[i]
		want.Link, want.Network = "", ""
		if !reflect.DeepEqual(n.NIC, want) || n.Device != slotMAC(i+1) {
			t.Errorf("interface %d: %+v", i, n)
		}
	}
	if len(h.create.NICs) != 2 || h.plugged != 2 {
		t.Errorf("%d interfaces asked for, %d devices taken", len(h.create.NICs), h.plugged)
	}
	if err := in.Delete(t.Context()); err != nil || h.plugged != 0 {
		t.Errorf("%v, and %d devices are still taken", err, h.plugged)
	}
	refuse = true
	s.ID = workload.NewID()
	if _, err := b.Create(t.Context(), s, p); err == nil || h.plugged != 0 {
		t.Errorf("got %v, and %d devices are taken", err, h.plugged)
	}
	refuse, h.devices = false, 1
	if _, err := b.Create(t.Context(), s, p); !errors.Is(err, errNICs) || h.plugged != 0 {
		t.Errorf("got %v, and %d devices are taken", err, h.plugged)
	}
}

// TestRewire: devices of the tenant's machine come to a workload that runs, and are
// free for others when the guest has given them back, not before.
func TestRewire(t *testing.T) {
	var refuse error
	h := &scripted{devices: 3, answer: func(req *protocol.Request, conn net.Conn) {
		if req.Op == protocol.OpRewire {
			reply(conn, refuse)
			return
		}
		reply(conn, nil)
	}}
	b, s, p := inTenant(t, h)
	nics, taps := interfaces(t, 3)
	p.NICs, p.Taps = nics[:1], taps[:1]
	in, err := b.Create(t.Context(), s, p)
	if err != nil {
		t.Fatal(err)
	}
	re := in.(boundary.Rewirer)
	edit := map[string]workload.FileEdit{"/etc/hosts": {New: []byte("x")}}
	if err := re.Rewire(t.Context(), boundary.Rewiring{Add: nics[1:2], Taps: taps[1:2], Files: edit}); err != nil {
		t.Fatal(err)
	}
	if w := h.rewire; len(w.Add) != 1 || w.Add[0].Device != slotMAC(2) || w.Add[0].Name != "eth1" || w.Add[0].Link != "" || len(w.Files) != 1 {
		t.Errorf("asked for %+v", w)
	}
	routed := nics[1]
	routed.Gateways = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	if err := re.Rewire(t.Context(), boundary.Rewiring{Remove: nics[:1], Route: []workload.NIC{routed}}); err != nil {
		t.Fatal(err)
	}
	if w := h.rewire; len(w.Remove) != 1 || w.Remove[0].Device != slotMAC(1) || len(w.Route) != 1 || w.Route[0].Device != slotMAC(2) || len(w.Route[0].Gateways) != 1 {
		t.Errorf("asked for %+v", w)
	}
	if h.plugged != 1 {
		t.Errorf("%d devices are taken", h.plugged)
	}
	if err := re.Rewire(t.Context(), boundary.Rewiring{Add: nics[2:], Taps: taps}); err == nil || h.plugged != 1 {
		t.Errorf("descriptors of others: got %v, and %d devices are taken", err, h.plugged)
	}
	refuse = workload.ErrUnsupported
	if err := re.Rewire(t.Context(), boundary.Rewiring{Remove: nics[1:2]}); !errors.Is(err, workload.ErrUnsupported) || h.plugged != 1 {
		t.Errorf("what the guest keeps: got %v, and %d devices are taken", err, h.plugged)
	}
	if err := re.Rewire(t.Context(), boundary.Rewiring{Add: nics[2:], Taps: taps[2:]}); !errors.Is(err, workload.ErrUnsupported) || h.plugged != 2 {
		t.Errorf("what the guest may have: got %v, and %d devices are taken", err, h.plugged)
	}
	h.devices, refuse = 2, nil
	if err := re.Rewire(t.Context(), boundary.Rewiring{Add: nics[:1], Taps: taps[:1]}); !errors.Is(err, errNICs) || h.plugged != 2 {
		t.Errorf("none left: got %v, and %d devices are taken", err, h.plugged)
	}
	if err := in.Delete(t.Context()); err != nil || h.plugged != 0 {
		t.Errorf("%v, and %d devices are still taken", err, h.plugged)
	}
}

func TestNICsAndDescriptors(t *testing.T) {
	b, s, p := inTenant(t, &scripted{})
	p.NICs, p.Taps = interfaces(t, 2)
	p.Taps = p.Taps[:1]
	if _, err := b.Create(t.Context(), s, p); err == nil || !strings.Contains(err.Error(), "descriptors of 1") {
		t.Errorf("got %v", err)
	}
}

// TestMachineForNICs: a microvm as long as there is room in one.
func TestMachineForNICs(t *testing.T) {
	for n, want := range map[int]qemu.MachineType{0: qemu.MicroVM, 4: qemu.MicroVM, 5: qemu.Q35, 8: qemu.Q35} {
		p := boundary.Prepared{Machine: &boundary.Machine{MMIO: true}}
		p.NICs, p.Taps = interfaces(t, n)
		if c := config(workload.Spec{}, p, "/run", size{cpus: 1}); c.Machine != want || len(c.NICs) != n {
			t.Errorf("%d interfaces: %d on a %s, want a %s", n, len(c.NICs), c.Machine, want)
		}
	}
	c := config(workload.Spec{VM: workload.VM{Machine: true}}, boundary.Prepared{Machine: &boundary.Machine{}}, "/run", size{cpus: 1})
	if len(c.NICs) != qemu.MaxNICs || c.NICs[0].Kind != qemu.Slot || len(c.Disks) != qemu.MaxDisks(qemu.Q35) {
		t.Errorf("a tenant's machine has %d network devices, %d disks", len(c.NICs), len(c.Disks))
	}
}

// TestExplainNICs: without a start there are no addresses, but the devices show.
func TestExplainNICs(t *testing.T) {
	for network, want := range map[string]string{"none": "", "user": "-netdev socket,", "bridge": "-netdev tap,"} {
		p, assumed := explainNICs(workload.Spec{Network: network, Networks: []workload.Attachment{{Network: "bridge"}, {Network: "other", MAC: "02:42:00:00:00:09"}}}, boundary.Prepared{Machine: &boundary.Machine{}})
		if assumed != (want != "") {
			t.Errorf("%s: assumed %v", network, assumed)
		}
		c := config(workload.Spec{}, p, "/run", size{cpus: 1})
		c.Memory = 128 * mib
		text := strings.Join(qemu.Command(c), " ")
		if !strings.Contains(text, want) || want == "" && strings.Contains(text, "netdev") {
			t.Errorf("%s: no %q in %s", network, want, text)
		}
		if network == "bridge" && !strings.Contains(text, "02:42:00:00:00:09") {
			t.Errorf("the MAC address that was asked for is not in %s", text)
		}
	}
}

// TestTenantDevices takes every network device of a machine that runs, and one
// more.
func TestTenantDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine; TestTenantConformance uses its devices")
	}
	f := newFixture(t)
	s := workload.Spec{ID: workload.NewID(), Boundary: "vm", VM: workload.VM{Machine: true}}
	in, err := Boundary{}.Create(t.Context(), s, f.prepare(t, s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
	host := in.(boundary.Host)
	ns, err := rtnl.Make()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	plug := func(n int) (device string, release func(), err error) {
		err = rtnl.In(ns, func() error {
			tap, err := nettest.OpenTap(fmt.Sprintf("tap%d", n))
			if err == nil {
				device, release, err = host.Plug(t.Context(), tap, false)
				tap.Close()
			}
			return err
		})
		return device, release, err
	}
	seen := map[string]bool{}
	var last func()
	for n := range qemu.MaxNICs {
		device, release, err := plug(n)
		if err != nil || seen[device] {
			t.Fatalf("device %d is %s: %v", n, device, err)
		}
		seen[device], last = true, release
	}
	_, _, err = plug(qemu.MaxNICs)
	if !errors.Is(err, errNICs) || !errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "all 8 are in use") {
		t.Errorf("one more: %v", err)
	}
	last()
	if _, _, err := plug(qemu.MaxNICs); err != nil {
		t.Errorf("after one was given back: %v", err)
	}
}

// TestSystemNICs: a whole system has its interfaces before its init begins.
func TestSystemNICs(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine; package nic tests what the agent does in it")
	}
	f := newFixture(t)
	ns, err := rtnl.Make()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	memory := int64(256 * mib)
	s := workload.Spec{
		ID: workload.NewID(), Boundary: "vm", VM: workload.VM{System: true}, Resources: workload.Resources{Memory: &memory},
		Process: workload.Process{Args: []string{"/bin/program", "serve", "80"}, Cwd: "/", Env: []string{"PATH=/bin"}},
	}
	p := f.prepare(t, s)
	for i := range 2 {
		n := workload.NIC{
			Name: fmt.Sprintf("eth%d", 1-i), MAC: fmt.Sprintf("02:42:00:00:01:%02x", i), Link: fmt.Sprintf("tap%d", i), MTU: 1400,
			Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/30", 4*i+2)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::2/64", i))},
		}
		p.NICs = append(p.NICs, n)
		if err := rtnl.In(ns, func() error {
			tap, err := nettest.OpenTap(n.Link)
			if err != nil {
				return err
			}
			p.Taps = append(p.Taps, tap)
			return hostEnd(n)
		}); err != nil {
			t.Fatal(err)
		}
	}
	in, err := Boundary{}.Create(t.Context(), s, p)
	for _, tap := range p.Taps {
		tap.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := in.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range p.NICs {
		for _, a := range n.Addresses {
			if said, err := ask(ns, a.Addr()); err != nil || said != a.Addr().Prev().String() {
				t.Errorf("%s at %v: called by %q, %v", n.Name, a, said, err)
			}
		}
	}
}

// hostEnd configures the host's end of a link, whose addresses are those before
// the guest's.
func hostEnd(n workload.NIC) error {
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Find(func(l rtnl.Link) bool { return l.Name == n.Link })
	if err == nil {
		err = c.SetLink(l.Index, rtnl.Change{MTU: n.MTU, State: rtnl.Up})
	}
	for _, p := range n.Addresses {
		if err == nil {
			err = c.AddAddress(l.Index, netip.PrefixFrom(p.Addr().Prev(), p.Bits()))
		}
	}
	return err
}

// ask dials a guest, until its server is there, and returns what that says.
func ask(ns *os.File, a netip.Addr) (said string, err error) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err = rtnl.In(ns, func() error {
			c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 80).String(), 10*time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			b, err := io.ReadAll(c)
			said = string(b)
			return err
		})
		if err == nil || time.Now().After(deadline) {
			return said, err
		}
	}
}
