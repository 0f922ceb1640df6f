package main

import (
	"net/netip"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestDescribePorts(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	port := func(host, inside uint16, protocol string, ip netip.Addr) workload.Port {
		return workload.Port{HostIP: ip, HostPort: host, Port: inside, Protocol: protocol}
	}
	for _, tt := range []struct {
		name    string
		ports   []workload.Port
		exposed []string
		want    string
	}{
		{"nothing", nil, nil, ""},
		{"exposed", nil, []string{"80/tcp", "443/tcp"}, "80/tcp, 443/tcp"},
		{"exposed range", nil, []string{"80/tcp", "81/tcp", "82/udp"}, "80-81/tcp, 82/udp"},
		{"everywhere", []workload.Port{port(8080, 80, "tcp", netip.Addr{})}, []string{"80/tcp", "443/tcp"},
			"0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp"},
		{"one address", []workload.Port{port(53, 53, "udp", local), port(8080, 80, "tcp", netip.MustParseAddr("::1"))}, nil,
			"127.0.0.1:53->53/udp, [::1]:8080->80/tcp"},
		{"range", []workload.Port{port(8001, 81, "tcp", local), port(8000, 80, "tcp", local), port(8003, 82, "tcp", local)}, nil,
			"127.0.0.1:8000-8001->80-81/tcp, 127.0.0.1:8003->82/tcp"},
		{"range everywhere", []workload.Port{port(8000, 80, "tcp", netip.Addr{}), port(8001, 81, "tcp", netip.Addr{})}, nil,
			"0.0.0.0:8000-8001->80-81/tcp, [::]:8000-8001->80-81/tcp"},
	} {
		if got := describePorts(tt.ports, tt.exposed); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}
