package resolve

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func testTable(t testing.TB) (*table, string) {
	t.Helper()
	dir := t.TempDir()
	tab, err := openTable(dir, "lab", []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd00:77::/64")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tab.close)
	return tab, dir
}

func write(t testing.TB, dir, address, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, address), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// testServer knows one workload and nobody upstream.
func testServer(t testing.TB) *server {
	t.Helper()
	tab, dir := testTable(t)
	write(t, dir, "10.77.0.2", `{"workload":"w","network":"lab","names":["web","com"]}`)
	write(t, dir, "fd00:77::2", `{"workload":"w","network":"lab","names":["web"]}`)
	if _, err := tab.refresh(netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	return &server{table: tab, peers: &peers{}, forwarder: newForwarder(nil, 0)}
}

// TestLeasesAsWritten reads what package network writes.
func TestLeasesAsWritten(t *testing.T) {
	b, err := json.Marshal(network.Lease{Workload: "0123", Network: "lab", Names: []string{"Web", "w.", "web", ""}, NIC: workload.NIC{Name: "eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := parseLease(b, "lab")
	if err != nil || l.workload != "0123" || !slices.Equal(l.names, []string{"web", "w"}) {
		t.Errorf("%s is read as %+v, %v", b, l, err)
	}
	if _, err := parseLease(b, "other"); err == nil {
		t.Error("the lease of another network is taken")
	}
}

// TestHostileDirectory has everything in the directory that is not a lease.
func TestHostileDirectory(t *testing.T) {
	tab, dir := testTable(t)
	const good = `{"workload":"w","network":"lab","names":["web"]}`
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(good), 0o644); err != nil {
		t.Fatal(err)
	}
	for address, content := range map[string]string{
		"10.77.0.1": "", "10.77.0.2": "{", "10.77.0.3": good[:20], "10.77.0.4": "null", "10.77.0.5": "[]", "10.77.0.6": `{"workload":7}`,
		"10.77.0.7": `{"network":"lab","names":["web"]}`, "10.77.0.8": strings.Repeat(" ", 1<<20) + good,
		"10.77.0.9": strings.Repeat(`{"workload":`, 5000), "10.77.00.10": good, "010.77.0.11": good, "10.78.0.12": good, "fd00:77::0:13": good,
		"::ffff:10.77.0.14": good, "fd00:77::15%eth0": good, ".10.77.0.16": good, "10.77.0.17.tmp": good, "lock": good,
	} {
		write(t, dir, address, content)
	}
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "10.77.0.20"), 0o755),
		os.Symlink(secret, filepath.Join(dir, "10.77.0.21")),
		unix.Mkfifo(filepath.Join(dir, "10.77.0.22"), 0o644),
		unix.Mknod(filepath.Join(dir, "10.77.0.23"), unix.S_IFSOCK|0o644, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, "10.77.0.99", `{"workload":"w","network":"lab","names":["`+strings.Repeat("x", 300)+`","a b","..",`+strings.Repeat(`"y",`, 10000)+`"web"]}`)
	for what, look := range map[string]func() error{"as it happens": tab.sync, "at once": tab.scan} {
		if err := look(); err != nil {
			t.Fatal(what, err)
		}
		if len(tab.leases) != 1 || len(tab.names) != 1 || tab.names["y"] == nil {
			t.Errorf("%s: leases %v, names %v", what, tab.leases, tab.names)
		}
	}
	// A good one, then half of it, then none.
	at := netip.MustParseAddr("10.77.0.50")
	for i, content := range []string{good, good[:10], good} {
		write(t, dir, at.String(), content)
		if l, err := tab.refresh(at); err != nil || (l != nil) != (i != 1) {
			t.Errorf("step %d: %v %v", i, l, err)
		}
	}
	if err := os.Rename(filepath.Join(dir, at.String()), filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	if l, err := tab.refresh(at); l != nil || err != nil || tab.names["web"] != nil {
		t.Errorf("after it was renamed away: %v %v, names %v", l, err, tab.names)
	}
	if err := os.Link(secret, filepath.Join(dir, at.String())); err != nil {
		t.Fatal(err)
	}
	if l, err := tab.refresh(at); l == nil || err != nil {
		t.Errorf("made by link(2): %v %v", l, err)
	}
}

func FuzzLease(f *testing.F) {
	f.Add([]byte(`{"workload":"w","network":"lab","names":["web","Shop.Example."],"nic":{"name":"eth0"}}`))
	f.Add([]byte(`{"workload":"w","network":"lab","names":[null,"\u0000","..","a..b"]}`))
	f.Add([]byte(`{"WORKLOAD":"w","network":"lab","names":"web"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLease(b, "lab")
		if err != nil {
			return
		}
		if l.workload == "" || len(l.names) > maxNames {
			t.Fatalf("%q is read as %+v", b, l)
		}
		for _, name := range l.names {
			wire := wireName(name)
			if wire == nil {
				t.Fatalf("%q is no name", name)
			}
			if back := presentation(wire); back != name {
				t.Fatalf("%q comes back as %q", name, back)
			}
		}
	})
}
