package etc

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var joined = Net{
	NICs: []workload.NIC{
		{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("172.30.0.5/24"), netip.MustParsePrefix("fd00::5/64")}},
		{Name: "eth1", Addresses: []netip.Prefix{netip.MustParsePrefix("172.31.0.9/24")}},
	},
	Nameservers: []netip.Addr{addr("172.30.0.1"), addr("fd00::1")},
	Host:        []netip.Addr{addr("172.30.0.1"), addr("fd00::1")},
}

var forwarding = Net{NICs: joined.NICs, Nameservers: joined.Nameservers, Forward: true, Host: joined.Host}

func TestHosts(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec workload.Spec
		net  Net
		want string // after loopback
	}{
		{"none", workload.Spec{Network: "none", Hostname: "0123", Name: "web"}, Net{}, "127.0.1.1\t0123\n"},
		{"none with a host", workload.Spec{Network: "none", Hostname: "0123", ExtraHosts: []workload.HostEntry{{Name: "db", Addr: addr("10.0.0.1")}}}, Net{},
			"10.0.0.1\tdb\n127.0.1.1\t0123\n"},
		{"no host name", workload.Spec{Network: "none"}, Net{}, ""},
		{"bridge", workload.Spec{Network: "bridge", Hostname: "web.example", Name: "front", ExtraHosts: []workload.HostEntry{{Name: "gw"}, {Name: "db", Addr: addr("fd01::1")}}}, joined,
			"172.30.0.1\tgw\nfd00::1\tgw\nfd01::1\tdb\n172.30.0.5\tweb.example web front\nfd00::5\tweb.example web front\n172.31.0.9\tweb.example web front\n"},
		{"not joined yet", workload.Spec{Network: "bridge", Hostname: "web", Name: "web"}, Net{}, "127.0.1.1\tweb\n"},
	} {
		got, err := Hosts(&tt.spec, tt.net)
		if err != nil || string(got) != loopback+tt.want {
			t.Errorf("%s: %v\n%s\nwant after loopback\n%s", tt.name, err, got, tt.want)
		}
	}
}

func TestHostsOfTheHost(t *testing.T) {
	host, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Skip(err)
	}
	got, err := Hosts(&workload.Spec{Network: "host", Hostname: "x", ExtraHosts: []workload.HostEntry{{Name: "me"}}}, Net{})
	want := strings.TrimSuffix(string(host), "\n") + "\n127.0.0.1\tme\n"
	if err != nil || string(got) != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
}

func TestResolv(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec workload.Spec
		net  Net
		want string
	}{
		{"none", workload.Spec{Network: "none"}, Net{}, ""},
		{"all asked", workload.Spec{Network: "none", DNS: workload.DNS{Servers: []netip.Addr{addr("9.9.9.9"), addr("fd00::9")}, Search: []string{"a", "b"}, Options: []string{"ndots:2"}}}, Net{},
			"nameserver 9.9.9.9\nnameserver fd00::9\nsearch a b\noptions ndots:2\n"},
		{"the network's", workload.Spec{Network: "bridge", DNS: workload.DNS{Search: []string{"."}}}, joined, "nameserver 172.30.0.1\nnameserver fd00::1\nsearch .\noptions ndots:0\n"},
		{"the network's, with options", workload.Spec{Network: "bridge", DNS: workload.DNS{Search: []string{"."}, Options: []string{"rotate"}}}, joined, "nameserver 172.30.0.1\nnameserver fd00::1\nsearch .\noptions rotate ndots:0\n"},
		{"the network's, with dots", workload.Spec{Network: "bridge", DNS: workload.DNS{Search: []string{"."}, Options: []string{"ndots:2"}}}, joined, "nameserver 172.30.0.1\nnameserver fd00::1\nsearch .\noptions ndots:2\n"},
		{"asked in a network", workload.Spec{Network: "bridge", DNS: workload.DNS{Servers: []netip.Addr{addr("9.9.9.9")}, Search: []string{"."}}}, joined, "nameserver 9.9.9.9\nsearch .\n"},
		{"asked of the network's", workload.Spec{Network: "bridge", DNS: workload.DNS{Servers: []netip.Addr{addr("9.9.9.9")}, Search: []string{"."}}}, forwarding,
			"nameserver 172.30.0.1\nnameserver fd00::1\nsearch .\noptions ndots:0\n"},
		{"asked where there is none", workload.Spec{Network: "bridge", DNS: workload.DNS{Servers: []netip.Addr{addr("9.9.9.9")}, Search: []string{"."}}}, Net{Forward: true},
			"nameserver 9.9.9.9\nsearch .\n"},
	} {
		got, err := Resolv(&tt.spec, tt.net)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", tt.name, err, got, tt.want)
		}
	}
}

func FuzzParseResolver(f *testing.F) {
	f.Add([]byte("# c\ndomain x\nsearch a b\nnameserver 1.1.1.1\nnameserver bad\noptions ndots:1 rotate\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := parseResolver(b)
		if len(r.servers) > maxServers || len(r.search) > maxWords || len(r.options) > maxWords {
			t.Errorf("%q: %+v", b, r)
		}
	})
}

func TestParseResolver(t *testing.T) {
	r := parseResolver([]byte("domain x\nsearch a b\nnameserver 1.1.1.1\nnameserver fe80::1%eth0\nnameserver bad\noptions ndots:1\noptions rotate\n"))
	if got := string(r.text()); got != "nameserver 1.1.1.1\nnameserver fe80::1%eth0\nsearch a b\noptions ndots:1 rotate\n" {
		t.Error(got)
	}
}
