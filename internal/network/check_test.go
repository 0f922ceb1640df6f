package network

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	sub := func(p string, more ...string) Subnet {
		s := Subnet{Prefix: netip.MustParsePrefix(p)}
		if len(more) > 0 && more[0] != "" {
			s.Gateway = netip.MustParseAddr(more[0])
		}
		if len(more) > 1 {
			s.Range = netip.MustParsePrefix(more[1])
		}
		return s
	}
	for _, tt := range []struct {
		name string
		n    Network
		want string // in the error, "" for none
	}{
		{"least", Network{Name: "n"}, ""},
		{"all", Network{Name: "n", Driver: "bridge", MTU: 9000, Subnets: []Subnet{sub("10.0.0.0/24", "10.0.0.9", "10.0.0.128/25"), sub("fd00::/64", "fd00::9")}}, ""},
		{"any", Network{Name: "n", Subnets: []Subnet{{Prefix: Any4}, {Prefix: Any6}}}, ""},
		{"no name", Network{}, `name ""`},
		{"name with a slash", Network{Name: "a/b"}, `name "a/b"`},
		{"name of something else", Network{Name: "host"}, `"host" means something else`},
		{"driver", Network{Name: "n", Driver: "overlay"}, `"overlay"`},
		{"small MTU", Network{Name: "n", MTU: 576}, "MTU 576"},
		{"two of a family", Network{Name: "n", Subnets: []Subnet{sub("10.0.0.0/24"), sub("10.1.0.0/24")}}, "of one family"},
		{"address bits", Network{Name: "n", Subnets: []Subnet{sub("10.0.0.1/24")}}, "did you mean 10.0.0.0/24"},
		{"no prefix", Network{Name: "n", Subnets: []Subnet{{}}}, "subnet is missing"},
		{"too small", Network{Name: "n", Subnets: []Subnet{sub("10.0.0.0/31")}}, "/8 to /30"},
		{"too large", Network{Name: "n", Subnets: []Subnet{sub("10.0.0.0/7")}}, "/8 to /30"},
		{"loopback", Network{Name: "n", Subnets: []Subnet{sub("127.0.0.0/16")}}, "set aside"},
		{"link-local", Network{Name: "n", Subnets: []Subnet{sub("fe80::/64")}}, "set aside"},
		{"multicast", Network{Name: "n", Subnets: []Subnet{sub("224.0.0.0/24")}}, "set aside"},
		{"IPv4 in IPv6", Network{Name: "n", Subnets: []Subnet{{Prefix: netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 120)}}}, "not written"},
		{"gateway elsewhere", Network{Name: "n", Subnets: []Subnet{sub("10.0.0.0/24", "10.0.1.1")}}, "gateway 10.0.1.1"},
		{"gateway is broadcast", Network{Name: "n", Subnets: []Subnet{sub("10.0.0.0/24", "10.0.0.255")}}, "gateway 10.0.0.255"},
		{"range elsewhere", Network{Name: "n", Subnets: []Subnet{sub("10.0.0.0/24", "", "10.0.1.0/25")}}, "range 10.0.1.0/25"},
		{"range around", Network{Name: "n", Subnets: []Subnet{sub("10.0.0.0/24", "", "10.0.0.0/16")}}, "range 10.0.0.0/16"},
		{"gateway of any", Network{Name: "n", Subnets: []Subnet{{Prefix: Any4, Gateway: netip.MustParseAddr("10.0.0.1")}}}, "needs a subnet"},
	} {
		err := tt.n.Check()
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestNameserver(t *testing.T) {
	for _, tt := range []struct{ prefix, gateway, want string }{
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.254"}, {"10.0.0.0/24", "10.0.0.254", "10.0.0.253"}, {"10.0.0.0/29", "10.0.0.1", "10.0.0.6"},
		{"10.0.0.0/30", "10.0.0.1", "invalid IP"}, {"fd00::/64", "fd00::1", "fd00::53"}, {"fd00::/64", "fd00::53", "fd00::54"}, {"fd00::/121", "fd00::1", "invalid IP"},
	} {
		s := Subnet{Prefix: netip.MustParsePrefix(tt.prefix), Gateway: netip.MustParseAddr(tt.gateway)}
		if got := s.Nameserver(); got.String() != tt.want {
			t.Errorf("%s, gateway %s: got %s, want %s", tt.prefix, tt.gateway, got, tt.want)
		}
	}
}
