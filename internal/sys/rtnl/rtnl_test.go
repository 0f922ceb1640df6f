package rtnl

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
)

func TestMain(m *testing.M) {
	nettest.Isolate()
	os.Exit(m.Run())
}

// ip runs the ip command, in ns if that is not nil.
func ip(t *testing.T, ns *os.File, args ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	name, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("needs the program ip of iproute2")
	}
	var out []byte
	if err := In(ns, func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	}); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

func open(t *testing.T, ns *os.File) *Conn {
	t.Helper()
	c, err := DialIn(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func namespace(t *testing.T) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns, err := Make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func named(name string) func(Link) bool { return func(l Link) bool { return l.Name == name } }

// TestInterface does to a veth what the agent of a guest does to a device.
func TestInterface(t *testing.T) {
	ns := namespace(t)
	ip(t, nil, "link", "add", "host0", "type", "veth", "peer", "name", "peer0")
	t.Cleanup(func() { ip(t, nil, "link", "del", "host0") })
	here, there := open(t, nil), open(t, ns)
	peer, err := here.Find(named("peer0"))
	if err != nil {
		t.Fatal(err)
	}
	mac, err := ParseMAC("02:42:AC:11:00:02")
	if err != nil {
		t.Fatal(err)
	}
	if err := here.SetLink(peer.Index, Change{Name: "eth0", MAC: mac, MTU: 1400, Namespace: ns}); err != nil {
		t.Fatal(err)
	}
	if _, err := here.Find(named("eth0")); !errors.Is(err, ErrNoLink) {
		t.Errorf("it is still here: %v", err)
	}
	l, err := there.Find(func(l Link) bool { return l.MAC == mac })
	if err != nil {
		t.Fatal(err)
	}
	if err := there.SetLink(l.Index, Change{State: Up}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"192.0.2.2/24", "2001:db8::2/64"} {
		for range 2 { // the second time it is there
			if err := there.AddAddress(l.Index, netip.MustParsePrefix(a)); err != nil {
				t.Errorf("%s: %v", a, err)
			}
		}
	}
	ip(t, nil, "link", "set", "host0", "up")
	for _, g := range []string{"192.0.2.1", "2001:db8::1"} {
		if err := there.AddDefaultRoute(l.Index, netip.MustParseAddr(g)); err != nil {
			t.Errorf("%s: %v", g, err)
		}
	}
	l, err = there.Find(named("eth0"))
	if err != nil || l.MTU != 1400 || !l.Up || l.MAC != mac {
		t.Errorf("got %+v, %v", l, err)
	}
	got := ip(t, ns, "addr", "show", "eth0") + ip(t, ns, "route") + ip(t, ns, "-6", "route")
	for _, want := range []string{"inet 192.0.2.2/24 brd 192.0.2.255", "inet6 2001:db8::2/64 scope global nodad", "default via 192.0.2.1 dev eth0", "default via 2001:db8::1 dev eth0"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	// A default route that is replaced, and one by a gateway outside of the prefix.
	if err := there.AddDefaultRoute(l.Index, netip.MustParseAddr("198.51.100.1")); err != nil {
		t.Error(err)
	}
}

func TestLoopback(t *testing.T) {
	ns := namespace(t)
	c := open(t, ns)
	if err := c.LoopbackUp(); err != nil {
		t.Fatal(err)
	}
	l, err := c.Find(func(l Link) bool { return l.Loopback })
	if err != nil || !l.Up || l.Name != "lo" {
		t.Errorf("got %+v, %v", l, err)
	}
}

// TestRefused: the kernel's errors arrive, with what was attempted.
func TestRefused(t *testing.T) {
	c := open(t, namespace(t))
	for name, f := range map[string]func() error{
		"no such interface": func() error { return c.SetLink(12345, Change{State: Up}) },
		"a long name":       func() error { return c.SetLink(1, Change{Name: strings.Repeat("x", 16)}) },
		"no address":        func() error { return c.AddAddress(1, netip.Prefix{}) },
		"no gateway":        func() error { return c.AddDefaultRoute(1, netip.Addr{}) },
		"a route by a link that is down": func() error {
			return c.AddDefaultRoute(1, netip.MustParseAddr("192.0.2.1"))
		},
	} {
		if err := f(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestAwait finds an interface that comes later, and gives up on one that does
// not.
func TestAwait(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	found := make(chan error, 1)
	go func() {
		l, err := Await(10*time.Second, named("late0"))
		if err == nil && l.Index == 0 {
			err = errors.New("no index")
		}
		found <- err
	}()
	ip(t, nil, "link", "add", "late0", "type", "veth", "peer", "name", "late1")
	t.Cleanup(func() { ip(t, nil, "link", "del", "late0") })
	if err := <-found; err != nil {
		t.Error(err)
	}
	if _, err := Await(10*time.Millisecond, named("never0")); !errors.Is(err, ErrNoLink) {
		t.Errorf("got %v", err)
	}
}

// TestIn comes back to the namespace of before, whatever happens there.
func TestIn(t *testing.T) {
	ns := namespace(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	link := func() string {
		s, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := link()
	var inside string
	failed := errors.New("failed")
	if err := In(ns, func() error { inside = link(); return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if after := link(); after != before || inside == before {
		t.Errorf("%s, %s inside, %s afterwards", before, inside, after)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := In(null, func() error { return nil }); err == nil {
		t.Error("a file that is no namespace: no error")
	}
}

func TestParseMAC(t *testing.T) {
	for s, want := range map[string]string{
		"02:42:ac:11:00:02":  "02:42:ac:11:00:02",
		"FE:ff:FF:00:10:0a":  "fe:ff:ff:00:10:0a",
		"":                   "",
		"02:42:ac:11:00":     "",
		"02:42:ac:11:00:02:": "",
		"02-42-ac-11-00-02":  "",
		"02:42:ac:11:00:0g":  "",
		"0242:ac:11:00:02:0": "",
		"01:00:5e:00:00:01":  "", // of a group
		"00:00:00:00:00:00":  "",
	} {
		m, err := ParseMAC(s)
		if (err != nil) != (want == "") || err == nil && m.String() != want {
			t.Errorf("%q: got %v, %v", s, m, err)
		}
	}
}
