package nic

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestMain(m *testing.M) {
	nettest.Isolate()
	// Making a pair anew does to one of its ends what a driver does to its device.
	nameOf = func(l rtnl.Link) string { return l.MAC.String() }
	renew = func(name string) error {
		pair, ok := pairs[name]
		if !ok {
			return errors.New("there is no device " + name)
		}
		pair()
		return nil
	}
	os.Exit(m.Run())
}

// pairs make the pair of a device anew, by its MAC address.
var pairs = map[string]func(){}

func ip(t *testing.T, ns *os.File, args string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	name, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("needs the program ip of iproute2")
	}
	var out []byte
	if err := rtnl.In(ns, func() (err error) {
		out, err = exec.Command(name, strings.Fields(args)...).CombinedOutput()
		return err
	}); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// device makes a pair of interfaces whose one end stands for a device of the
// guest, and the other for the host.
func device(t *testing.T, host, guest, mac, addr4, addr6 string) {
	t.Helper()
	add := func() {
		ip(t, nil, "link add "+host+" type veth peer name "+guest+" address "+mac)
		ip(t, nil, "addr add "+addr4+" dev "+host)
		ip(t, nil, "addr add "+addr6+" dev "+host+" nodad")
		ip(t, nil, "link set "+host+" up")
	}
	add()
	pairs[mac] = func() {
		ip(t, nil, "link del "+host)
		add()
	}
	t.Cleanup(func() {
		delete(pairs, mac)
		ip(t, nil, "link del "+host)
	})
}

func described(name, mac, device string, addresses ...string) protocol.NIC {
	n := protocol.NIC{NIC: workload.NIC{Name: name, MAC: mac, MTU: 1400}, Device: device}
	for _, a := range addresses {
		p := netip.MustParsePrefix(a)
		n.Addresses = append(n.Addresses, p)
		n.Gateways = append(n.Gateways, p.Masked().Addr().Next())
	}
	return n
}

// reach sends something to an address of the host's end and back.
func reach(t *testing.T, ns *os.File, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, c.RemoteAddr().String())
			c.Close()
		}
	}()
	err = rtnl.In(ns, func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		if want := c.LocalAddr().String(); err == nil && string(b) != want {
			t.Errorf("%s was reached from %s, which is %s", addr, b, want)
		}
		return err
	})
	if err != nil {
		t.Errorf("reach %s: %v", addr, err)
	}
}

func TestAttach(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns := namespace(t)
	device(t, "host0", "dev0", "02:00:00:00:00:01", "192.0.2.1/24", "2001:db8::1/64")
	device(t, "host1", "dev1", "02:00:00:00:00:02", "198.51.100.1/24", "2001:db8:1::1/64")
	both := described("eth0", "02:42:ac:11:00:02", "02:00:00:00:00:01", "192.0.2.2/24", "2001:db8::2/64")
	four := described("eth1", "02:42:ac:11:00:03", "02:00:00:00:00:02", "198.51.100.2/24")
	four.Gateways = nil // the other's
	if err := new(Devices).Attach([]protocol.NIC{both, four}, ns); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"192.0.2.1", "2001:db8::1", "198.51.100.1"} {
		reach(t, ns, addr)
	}
	got := ip(t, ns, "addr") + ip(t, ns, "route") + ip(t, ns, "-6 route")
	for _, want := range []string{
		"02:42:ac:11:00:02", "02:42:ac:11:00:03", "mtu 1400", "inet 192.0.2.2/24", "inet6 2001:db8::2/64",
		"default via 192.0.2.1 dev eth0", "default via 2001:db8::1 dev eth0",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(ip(t, ns, "addr show eth1"), "inet6") {
		t.Error("an interface without an IPv6 address has IPv6")
	}
	if strings.Contains(got, "tentative") {
		t.Errorf("an address is not usable yet:\n%s", got)
	}
}

// TestAttachHere gives devices the names of each other.
func TestAttachHere(t *testing.T) {
	device(t, "host0", "eth1", "02:00:00:00:00:01", "192.0.2.1/24", "2001:db8::1/64")
	device(t, "host1", "eth0", "02:00:00:00:00:02", "198.51.100.1/24", "2001:db8:1::1/64")
	one := described("eth0", "02:42:ac:11:00:02", "02:00:00:00:00:01", "192.0.2.2/24")
	two := described("eth1", "02:42:ac:11:00:03", "02:00:00:00:00:02", "198.51.100.2/24", "2001:db8:1::2/64")
	one.Gateways, two.Gateways = nil, nil // they are this namespace's own addresses
	if err := new(Devices).Attach([]protocol.NIC{one, two}, nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"eth0": "192.0.2.2/24", "eth1": "198.51.100.2/24"} {
		if got := ip(t, nil, "addr show "+name); !strings.Contains(got, want) {
			t.Errorf("%s: no %s in\n%s", name, want, got)
		}
	}
}

func TestAttachNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	defer func(d time.Duration) { appear = d }(appear)
	appear = 10 * time.Millisecond
	err := new(Devices).Attach([]protocol.NIC{described("eth0", "02:42:ac:11:00:02", "02:00:00:00:00:09", "192.0.2.2/24")}, nil)
	if !errors.Is(err, rtnl.ErrNoLink) || !strings.Contains(err.Error(), "eth0") || !strings.Contains(err.Error(), "02:00:00:00:00:09") {
		t.Errorf("got %v", err)
	}
	for _, n := range []protocol.NIC{
		described("eth0", "02:42:ac:11:00:02", "nothing"), described("eth0", "nothing", "02:00:00:00:00:09"),
	} {
		if new(Devices).Attach([]protocol.NIC{n}, nil) == nil {
			t.Errorf("%+v: no error", n)
		}
	}
}

// TestDetach: an interface of a workload that runs goes back to the guest, and can
// be had again under the name that it had; another gets its routes.
func TestDetach(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns := namespace(t)
	device(t, "host0", "dev0", "02:00:00:00:00:01", "192.0.2.1/24", "2001:db8::1/64")
	device(t, "host1", "dev1", "02:00:00:00:00:02", "198.51.100.1/24", "2001:db8:1::1/64")
	one := described("eth0", "02:42:ac:11:00:02", "02:00:00:00:00:01", "192.0.2.2/24")
	two := described("eth1", "02:42:ac:11:00:03", "02:00:00:00:00:02", "198.51.100.2/24", "2001:db8:1::2/64")
	routes := two
	two.Gateways = nil
	var d Devices
	if err := d.Attach([]protocol.NIC{one, two}, ns); err != nil {
		t.Fatal(err)
	}
	if got, want := d.Given(), []string{"02:00:00:00:00:01", "02:00:00:00:00:02"}; !slices.Equal(got, want) {
		t.Errorf("given are %q, want %q", got, want)
	}
	if err := d.Detach([]protocol.NIC{one}); err != nil {
		t.Fatal(err)
	}
	if got, want := d.Given(), []string{"02:00:00:00:00:02"}; !slices.Equal(got, want) {
		t.Errorf("given are %q, want %q", got, want)
	}
	isNew(t, "dev0")
	if err := d.Detach([]protocol.NIC{one}); err != nil {
		t.Errorf("a second time: %v", err)
	}
	routes.Device = "02:42:ac:11:00:03" // which a pair has instead of one that nobody can change
	if err := Route([]protocol.NIC{routes}, ns); err != nil {
		t.Fatal(err)
	}
	got := ip(t, ns, "route") + ip(t, ns, "-6 route")
	for _, want := range []string{"default via 198.51.100.1 dev eth1", "default via 2001:db8:1::1 dev eth1"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if err := d.Attach([]protocol.NIC{one}, ns); err != nil {
		t.Fatal(err)
	}
	reach(t, ns, "192.0.2.1")
}

// TestDetachHidden: a workload keeps no device, wherever it has put it and whatever
// else looks like it; and nothing of what it did to one is left for the next.
func TestDetachHidden(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	one := described("eth0", "02:42:ac:11:00:02", "02:00:00:00:00:01", "192.0.2.2/24")
	for name, act := range map[string]func(t *testing.T, ns, hidden *os.File){
		"in a namespace": func(t *testing.T, ns, hidden *os.File) {
			toNamespace(t, ns, "eth0", hidden)
		},
		"behind a lookalike": func(t *testing.T, ns, hidden *os.File) {
			toNamespace(t, ns, "eth0", hidden)
			ip(t, ns, "link add eth0 address 02:00:00:00:00:01 type veth peer name fake")
		},
		"changed": func(t *testing.T, ns, _ *os.File) {
			ip(t, ns, "link set eth0 down")
			ip(t, ns, "link set eth0 name bh020000000002 arp off allmulticast on txqueuelen 7 gso_max_segs 1")
			ip(t, ns, "link property add dev bh020000000002 altname eth0 altname eth1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns, hidden, next := namespace(t), namespace(t), namespace(t)
			device(t, "host0", "dev0", "02:00:00:00:00:01", "192.0.2.1/24", "2001:db8::1/64")
			var d Devices
			if err := d.Attach([]protocol.NIC{one}, ns); err != nil {
				t.Fatal(err)
			}
			act(t, ns, hidden)
			if err := d.Detach([]protocol.NIC{one}); err != nil {
				t.Fatal(err)
			}
			isNew(t, "dev0")
			for _, ns := range []*os.File{ns, hidden} {
				if got := ip(t, ns, "addr"); strings.Contains(got, "192.0.2.2") {
					t.Errorf("the workload has still\n%s", got)
				}
			}
			if err := d.Attach([]protocol.NIC{one}, next); err != nil {
				t.Fatal(err)
			}
			reach(t, next, "192.0.2.1")
		})
	}
}

// TestAttachAgain: what was given before is taken back first, and is not given
// where that is not possible.
func TestAttachAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns, next := namespace(t), namespace(t)
	device(t, "host0", "dev0", "02:00:00:00:00:01", "192.0.2.1/24", "2001:db8::1/64")
	one := described("eth0", "02:42:ac:11:00:02", "02:00:00:00:00:01", "192.0.2.2/24")
	var d Devices
	if err := d.Attach([]protocol.NIC{one}, ns); err != nil {
		t.Fatal(err)
	}
	if err := d.Attach([]protocol.NIC{one}, next); err != nil {
		t.Fatal(err)
	}
	reach(t, next, "192.0.2.1")
	broken := errors.New("the driver hangs")
	defer func(f func(string) error) { renew = f }(renew)
	renew = func(string) error { return broken }
	if err := d.Detach([]protocol.NIC{one}); !errors.Is(err, broken) {
		t.Errorf("detach: got %v", err)
	}
	if err := d.Attach([]protocol.NIC{one}, ns); !errors.Is(err, broken) {
		t.Errorf("attach: got %v", err)
	}
}

// namespace makes one that ends after the devices that are made later: it takes
// along what is in it.
func namespace(t *testing.T) *os.File {
	t.Helper()
	ns, err := rtnl.Make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// toNamespace moves an interface.
func toNamespace(t *testing.T, ns *os.File, name string, to *os.File) {
	t.Helper()
	if err := rtnl.In(ns, func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		l, err := c.Find(func(l rtnl.Link) bool { return l.Name == name })
		if err == nil {
			err = c.SetLink(l.Index, rtnl.Change{Namespace: to})
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// isNew checks that a device is here and that nothing is left of its use.
func isNew(t *testing.T, name string) {
	t.Helper()
	got := ip(t, nil, "-d addr show "+name)
	for _, left := range []string{"192.0.2.2", "altname", "NOARP", "gso_max_segs 1 ", "qlen 7"} {
		if strings.Contains(got, left) {
			t.Errorf("what came back has %s:\n%s", left, got)
		}
	}
	if !strings.Contains(got, "state DOWN") || !strings.Contains(got, "02:00:00:00:00:01") {
		t.Errorf("what came back is\n%s", got)
	}
}
