package dial

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func leases(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestChoose(t *testing.T) {
	dir := leases(t, map[string]string{
		"10.1.0.2": `{"workload":"w","upstream":["192.0.2.1","2001:db8::1"]}`, "fd00::2": `{"upstream":["192.0.2.2"]}`,
		"10.1.0.3": `{}`, "10.1.0.4": `{"upstream":["192.0.2.1","127.0.0.1"]}`, "10.1.0.5": `{"upstream":["fe80::1%eth0"]}`, "10.1.0.6": "nothing",
		"10.1.0.7": `{"upstream":["192.0.2.1","192.0.2.2","192.0.2.3","192.0.2.4"]}`, "10.1.0.8": `{"upstream":["0.0.0.0"]}`,
		"10.1.0.9": strings.Repeat(" ", maxLease) + `{"upstream":["192.0.2.1"]}`, "passwd": `{"upstream":["192.0.2.1"]}`,
	})
	if err := os.Symlink("10.1.0.2", filepath.Join(dir, "10.1.0.10")); err != nil {
		t.Fatal(err)
	}
	network := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53")}
	for _, tt := range []struct {
		which byte
		of    string // an address, "" for none
		want  string
	}{
		{0, "", "127.0.0.53:53 false"}, {1, "", "127.0.0.53:53 true"}, {2, "", ""}, {ping, "", ""},
		{0, "10.1.0.2", "192.0.2.1:53 false"}, {3, "10.1.0.2", "[2001:db8::1]:53 true"}, {4, "10.1.0.2", ""}, {1, "fd00::2", "192.0.2.2:53 true"},
		{0, "10.1.0.3", ""}, {0, "10.1.0.4", ""}, {0, "10.1.0.5", ""}, {0, "10.1.0.6", ""}, {0, "10.1.0.7", ""}, {0, "10.1.0.8", ""}, {0, "10.1.0.9", ""},
		{0, "10.1.0.10", ""}, {0, "10.1.0.11", ""}, {0, "::ffff:10.1.0.2", ""},
	} {
		request := []byte{tt.which}
		if tt.of != "" {
			request = append(request, netip.MustParseAddr(tt.of).AsSlice()...)
		}
		got := ""
		if to, tcp, ok := choose(request, network, dir); ok {
			got = fmt.Sprint(to, " ", tcp)
		}
		if got != tt.want {
			t.Errorf("%d of %q: got %q, want %q", tt.which, tt.of, got, tt.want)
		}
		if _, _, ok := choose(request, network, ""); ok && tt.of != "" {
			t.Errorf("%d of %q: a server without leases", tt.which, tt.of)
		}
	}
}

// FuzzChoose: whatever a resolver that was taken over says, and whatever is in a
// lease, the server is one of the network's or one that the lease names, and of the
// host's own loopback none is.
func FuzzChoose(f *testing.F) {
	f.Add([]byte{0}, []byte(`{"upstream":["192.0.2.1"]}`))
	f.Add([]byte{1, 10, 1, 0, 2}, []byte(`{"upstream":["192.0.2.1","2001:db8::1"]}`))
	f.Add(append([]byte{2}, netip.MustParseAddr("fd00::2").AsSlice()...), []byte(`{"upstream":["::1"]}`))
	f.Add([]byte{1, '.', '.', '/'}, []byte("{}"))
	network := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53")}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, request, lease []byte) {
		if len(request) == 0 {
			return // the end
		}
		for _, name := range []string{"10.1.0.2", "fd00::2"} {
			if err := os.WriteFile(filepath.Join(dir, name), lease, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		to, _, ok := choose(request, network, dir)
		if ok && (to.Port() != Port || to != network[0] && (len(request) == 1 || !Usable(to.Addr()))) {
			t.Errorf("got %v", to)
		}
		if ok && to == network[0] && len(request) != 1 {
			t.Error("the network's server for a workload")
		}
	})
}
