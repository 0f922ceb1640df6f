package runspec

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var addrs = cmpopts.EquateComparable(netip.Addr{})

func TestParsePublish(t *testing.T) {
	a := netip.MustParseAddr
	for _, tt := range []struct {
		in   string
		want []workload.Port // nil for an error
		err  string
	}{
		{"80", []workload.Port{{Port: 80, Protocol: "tcp"}}, ""},
		{":80", []workload.Port{{Port: 80, Protocol: "tcp"}}, ""},
		{"::80", []workload.Port{{Port: 80, Protocol: "tcp"}}, ""},
		{"0:80", []workload.Port{{Port: 80, Protocol: "tcp"}}, ""},
		{"8080:80", []workload.Port{{HostPort: 8080, Port: 80, Protocol: "tcp"}}, ""},
		{"53:53/udp", []workload.Port{{HostPort: 53, Port: 53, Protocol: "udp"}}, ""},
		{"53:53/UDP", []workload.Port{{HostPort: 53, Port: 53, Protocol: "udp"}}, ""},
		{"127.0.0.1:8080:80", []workload.Port{{HostIP: a("127.0.0.1"), HostPort: 8080, Port: 80, Protocol: "tcp"}}, ""},
		{"127.0.0.1::80", []workload.Port{{HostIP: a("127.0.0.1"), Port: 80, Protocol: "tcp"}}, ""},
		{"[::1]:8080:80", []workload.Port{{HostIP: a("::1"), HostPort: 8080, Port: 80, Protocol: "tcp"}}, ""},
		{"::1:8080:80", []workload.Port{{HostIP: a("::1"), HostPort: 8080, Port: 80, Protocol: "tcp"}}, ""},
		{"[::]::80", []workload.Port{{HostIP: a("::"), Port: 80, Protocol: "tcp"}}, ""},
		{"0.0.0.0:80:80", []workload.Port{{HostIP: a("0.0.0.0"), HostPort: 80, Port: 80, Protocol: "tcp"}}, ""},
		{"[::ffff:10.0.0.1]:1:2", []workload.Port{{HostIP: a("10.0.0.1"), HostPort: 1, Port: 2, Protocol: "tcp"}}, ""},
		{"80-81", []workload.Port{{Port: 80, Protocol: "tcp"}, {Port: 81, Protocol: "tcp"}}, ""},
		{"8000-8001:80-81/udp", []workload.Port{{HostPort: 8000, Port: 80, Protocol: "udp"}, {HostPort: 8001, Port: 81, Protocol: "udp"}}, ""},
		{"8000-8100:80", []workload.Port{{HostPort: 8000, HostPortEnd: 8100, Port: 80, Protocol: "tcp"}}, ""},
		{"65535:65535", []workload.Port{{HostPort: 65535, Port: 65535, Protocol: "tcp"}}, ""},
		{"65534-65535:65534-65535", []workload.Port{{HostPort: 65534, Port: 65534, Protocol: "tcp"}, {HostPort: 65535, Port: 65535, Protocol: "tcp"}}, ""},
		{"published=8080,target=80", []workload.Port{{HostPort: 8080, Port: 80, Protocol: "tcp"}}, ""},
		{"target=53,protocol=udp", []workload.Port{{Port: 53, Protocol: "udp"}}, ""},
		{"", nil, "not a port"}, {":", nil, "not a port"}, {"8080:", nil, "not a port"}, {"0", nil, "not a port"}, {"65536", nil, "not a port"},
		{"-1", nil, "not a port"}, {"+80", nil, "not a port"}, {"80-", nil, "not a port"}, {"-80", nil, "not a port"}, {"http", nil, "not a port"},
		{"81-80", nil, "ends before"}, {"8001-8000:80", nil, "ends before"}, {"8000-8002:80-81", nil, "do not fit"}, {"8000:80-81", nil, "do not fit"},
		{"0-5:80", nil, "not a port"}, {"1-65535", nil, "too many"}, {"1-65535:1-65535", nil, "too many"},
		{"80/sctp", nil, "sctp"}, {"80/icmp", nil, "not a protocol"}, {"80/", nil, "not a protocol"}, {"80/tcp/udp", nil, "not a protocol"},
		{"localhost:80:80", nil, "not an address"}, {"1.2.3:80:80", nil, "not an address"}, {"[::1:80:80", nil, "bracket"}, {"::1:80", nil, "not an address"},
		{"[fe80::1%eth0]:80:80", nil, "nothing can be published"}, {"224.0.0.1:80:80", nil, "nothing can be published"},
		{"published=1", nil, "target"}, {"target=1,target=2", nil, "twice"}, {"target=1,x=2", nil, "unknown key"}, {"target=1,mode=x", nil, "unknown mode"},
		{"target=1:2", nil, "no plain value"}, {"target=", nil, "no plain value"},
	} {
		got, err := ParsePublish(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || advice.Fix(err) == "" {
				t.Errorf("ParsePublish(%q) = %v, %v; want an error with %q and advice", tt.in, got, err, tt.err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, got, addrs); err != nil || d != "" {
			t.Errorf("ParsePublish(%q): %v\n%s", tt.in, err, d)
		}
	}
}

// TestPublishExamples: what the advice names can be published.
func TestPublishExamples(t *testing.T) {
	examples := regexp.MustCompile(`-p (\S+?),?( |$)`).FindAllStringSubmatch(publishFix, -1)
	if len(examples) < 3 {
		t.Fatalf("found %q in %q", examples, publishFix)
	}
	for _, e := range examples {
		ports, err := ParsePublish(e[1])
		if err != nil {
			t.Errorf("%s: %v", e[1], err)
			continue
		}
		if ip := ports[0].HostIP; ip.Is6() && ip.IsLoopback() {
			t.Errorf("%s: nothing can be published on %s", e[1], ip)
		}
	}
}

func FuzzParsePublish(f *testing.F) {
	for _, s := range []string{"80", "127.0.0.1:8000-8010:80-90/udp", "[::1]:80:80", "published=8080,target=80,protocol=udp", "1-65535", "::::", "[", "a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ports, err := ParsePublish(s)
		if err == nil && (len(ports) == 0 || len(ports) > maxPorts) {
			t.Errorf("ParsePublish(%q): %d ports", s, len(ports))
		}
		for _, p := range ports {
			if p.Port == 0 || p.Protocol != "tcp" && p.Protocol != "udp" || p.HostIP.Zone() != "" || p.HostPortEnd != 0 && (len(ports) > 1 || p.HostPortEnd <= p.HostPort || p.HostPort == 0) {
				t.Errorf("ParsePublish(%q): %+v", s, p)
			}
		}
	})
}

func TestParseExpose(t *testing.T) {
	for in, want := range map[string][]string{
		"80": {"80/tcp"}, "80-81/udp": {"80/udp", "81/udp"}, "5/sctp": {"5/sctp"}, "": nil, "0": nil, "x": nil, "1-9999": nil, "80:80": nil, "80/x": nil,
	} {
		got, err := parseExpose("--expose", in)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("parseExpose(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseAttachment(t *testing.T) {
	full := workload.Attachment{
		Network: "back", Aliases: []string{"db", "store"}, MAC: "02:42:ac:11:00:02",
		IPv4: netip.MustParseAddr("10.1.0.5"), IPv6: netip.MustParseAddr("fd00::5"),
	}
	for _, tt := range []struct {
		in   string
		want workload.Attachment
		err  string
	}{
		{"back", workload.Attachment{Network: "back"}, ""},
		{"default", workload.Attachment{Network: "bridge"}, ""},
		{testID, workload.Attachment{Network: testID}, ""},
		{"name=back", workload.Attachment{Network: "back"}, ""},
		{"name=back,alias=db,alias=store,ip=10.1.0.5,ip6=fd00::5,mac-address=02-42-AC-11-00-02", full, ""},
		{`"name=back"`, workload.Attachment{Network: "back"}, ""},
		{"", workload.Attachment{}, "not the name"}, {"a b", workload.Attachment{}, "not the name"}, {"../x", workload.Attachment{}, "not the name"},
		{"container:web", workload.Attachment{}, "cannot share"}, {"alias=x", workload.Attachment{}, "name is missing"},
		{"name=ab,name=cd", workload.Attachment{}, "twice"}, {"name=ab,ip=fd00::5", workload.Attachment{}, "not an IPv4"}, {"name=ab,ip6=10.0.0.1", workload.Attachment{}, "not an IPv6"},
		{"name=ab,ip=127.0.0.1", workload.Attachment{}, "no address"}, {"name=ab,mac-address=01:00:00:00:00:00", workload.Attachment{}, "one interface"},
		{"name=ab,mac-address=1", workload.Attachment{}, "hardware"}, {"name=ab,alias=a/b", workload.Attachment{}, "not a name"},
		{"name=ab,x=y", workload.Attachment{}, "unknown key"}, {"name=ab,driver-opt=x", workload.Attachment{}, "not available"}, {"name=ab,alias", workload.Attachment{}, "KEY=VALUE"},
		{"name=\"a", workload.Attachment{}, "quoted"}, {"name=a\nb", workload.Attachment{}, "line break"},
	} {
		got, err := ParseAttachment(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || advice.Fix(err) == "" {
				t.Errorf("ParseAttachment(%q): %v; want %q with advice", tt.in, err, tt.err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, got, addrs); err != nil || d != "" {
			t.Errorf("ParseAttachment(%q): %v\n%s", tt.in, err, d)
		}
	}
}

func FuzzParseAttachment(f *testing.F) {
	f.Add("name=back,alias=db,ip=10.1.0.5,mac-address=02:42:ac:11:00:02")
	f.Add("back")
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseAttachment(s); err == nil && (a.Network == "" || strings.ContainsAny(a.Network, "/\x00 ") || len(a.Aliases) > maxAliases) {
			t.Errorf("ParseAttachment(%q) = %+v", s, a)
		}
	})
}

func TestParseHost(t *testing.T) {
	a := netip.MustParseAddr
	for _, tt := range []struct {
		in   string
		want workload.HostEntry
		ok   bool
	}{
		{"db:10.0.0.1", workload.HostEntry{Name: "db", Addr: a("10.0.0.1")}, true},
		{"db=10.0.0.1", workload.HostEntry{Name: "db", Addr: a("10.0.0.1")}, true},
		{"db:::1", workload.HostEntry{Name: "db", Addr: a("::1")}, true},
		{"db:[fd00::1]", workload.HostEntry{Name: "db", Addr: a("fd00::1")}, true},
		{"me:host-gateway", workload.HostEntry{Name: "me"}, true},
		{"db", workload.HostEntry{}, false}, {":1.2.3.4", workload.HostEntry{}, false}, {"a b:1.2.3.4", workload.HostEntry{}, false},
		{"db:", workload.HostEntry{}, false}, {"db:x", workload.HostEntry{}, false}, {"db:fe80::1%eth0", workload.HostEntry{}, false}, {"d\nb:1.2.3.4", workload.HostEntry{}, false},
	} {
		got, err := parseHost(tt.in)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("parseHost(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

// TestNetworkFlags is about flags together: what a Spec gets of them.
func TestNetworkFlags(t *testing.T) {
	c := ImageConfig{Cmd: []string{"/bin/true"}, ExposedPorts: []string{"443/tcp", "80", "53/udp"}}
	line := func(s string) []string { return append(strings.Fields(s), "test") }
	s, err := parse(t, line("--network front --network name=back,alias=db --network-alias web --ip 10.1.0.5 --ip6 fd00::5 --mac-address 02:00:00:00:00:01 "+
		"-p 8443:443 -P --expose 99 --dns 9.9.9.9 --dns-search example.org --dns-option ndots:2 --add-host a:1.2.3.4 --add-host host:host-gateway"), c)
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr
	want := workload.Spec{
		Network: "bridge",
		Networks: []workload.Attachment{
			{Network: "front", Aliases: []string{"web"}, IPv4: a("10.1.0.5"), IPv6: a("fd00::5"), MAC: "02:00:00:00:00:01"},
			{Network: "back", Aliases: []string{"db"}},
		},
		Ports: []workload.Port{
			{HostPort: 8443, Port: 443, Protocol: "tcp"}, {Port: 53, Protocol: "udp"}, {Port: 80, Protocol: "tcp"}, {Port: 99, Protocol: "tcp"},
		},
		Exposed:    []string{"53/udp", "80/tcp", "99/tcp", "443/tcp"},
		DNS:        workload.DNS{Servers: []netip.Addr{a("9.9.9.9")}, Search: []string{"example.org"}, Options: []string{"ndots:2"}},
		ExtraHosts: []workload.HostEntry{{Name: "a", Addr: a("1.2.3.4")}, {Name: "host"}},
	}
	got := workload.Spec{Network: s.Network, Networks: s.Networks, Ports: s.Ports, Exposed: s.Exposed, DNS: s.DNS, ExtraHosts: s.ExtraHosts}
	if d := cmp.Diff(want, got, addrs); d != "" {
		t.Error(d)
	}
	s, err = parse(t, line("--net front --network back --net third --dns-opt a --dns-option b"), c)
	if err != nil || len(s.Networks) != 3 || len(s.DNS.Options) != 2 || s.Ports != nil {
		t.Errorf("older spellings beside newer: %+v, %+v, %v", s.Networks, s.DNS, err)
	}

	many := ""
	for range 70 {
		many += " --network-alias x"
	}
	for in, want := range map[string]string{
		"--network host -p 80:80":                                                 "nothing to publish",
		"--network host -P":                                                       "nothing to publish",
		"--network none -p 80":                                                    "cannot be published",
		"--network none --add-host h:host-gateway":                                "no address",
		"--network none --ip 10.0.0.5":                                            "no meaning",
		"--network host --network-alias x":                                        "no meaning",
		"--network none --network host":                                           "excludes",
		"--network front --network none":                                          "excludes",
		"--network front --network name=front":                                    "twice",
		"--network name=none,alias=x":                                             "no meaning",
		"--network user --network front":                                          "excludes",
		"--network name=user,ip=10.0.0.5":                                         "no meaning",
		"--network user --mac-address 02:00:00:00:00:01":                          "no meaning",
		"--network name=front,ip=10.0.0.5 --ip 10.0.0.6":                          "one of",
		"--network name=front,alias=x --network-alias y":                          "one of",
		"--network front -p 80:80 -p 80:81":                                       "leads to port 80 already",
		"--network front -p 80:80 -p 127.0.0.1:80:81":                             "already",
		"--network front -p 0.0.0.0:80:80 -p 127.0.0.1:80:81":                     "already",
		"--network front -p 1000-1999:1000-1999 -p 2000-2999:1-1000":              "too many",
		"--network front --dns x":                                                 "name server",
		"--network front --dns 1.1.1.1 --dns 1.1.1.2 --dns 1.1.1.3 --dns 1.1.1.4": "too many",
		"--network front --dns-search . --dns-search a":                           "means none",
		"--network front --dns-search a..b":                                       "not a domain",
		"--network front --dns-option a;b":                                        "not an option",
		"--network front --ip 300.1.1.1":                                          "not an IPv4",
		"--network front" + many:                                                  "too many aliases",
	} {
		if _, err := parse(t, line(in), c); err == nil || !strings.Contains(err.Error()+" "+advice.Fix(err), want) || advice.Fix(err) == "" {
			t.Errorf("%s: %v; want %q with advice", in, err, want)
		}
	}
	for _, in := range []string{
		"--network front -p 80:80 -p 80:80/udp", "--network front -p 0.0.0.0:80:80 -p [::]:80:80", "--network front -p 127.0.0.1:80:80 -p 127.0.0.2:80:80",
		"--network front -p 80 -p 80", "--network host --dns 1.1.1.1 --add-host h:host-gateway",
	} {
		if _, err := parse(t, line(in), c); err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestServerZone(t *testing.T) {
	for server, ok := range map[string]bool{"fe80::1%eth0": true, "fe80::1%eth0\nsearch evil": false, "fe80::1%eth0 search": false, "fe80::1%#": false} {
		_, err := parse(t, []string{"--dns", server, "test"}, ImageConfig{Cmd: []string{"a"}})
		if (err == nil) != ok {
			t.Errorf("--dns %q: got %v, want it taken: %t", server, err, ok)
		}
	}
}

func TestHostileExposedPorts(t *testing.T) {
	for _, p := range []string{"x", "80/foo", "1-65535", "99999"} {
		if _, err := parse(t, []string{"--network", "front", "test"}, ImageConfig{Cmd: []string{"a"}, ExposedPorts: []string{p}}); err == nil {
			t.Errorf("an image that exposes %q is taken", p)
		}
	}
}
