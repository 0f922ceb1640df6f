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
	nic := func(addr ...string) (n workload.NIC) {
		for _, a := range addr {
			p := netip.MustParsePrefix(a)
			n.Addresses, n.Gateways = append(n.Addresses, p), append(n.Gateways, p.Addr().Next())
		}
		return n
	}
	four, six, both := nic("10.1.0.2/24"), nic("fd00::2/64"), nic("10.2.0.2/24", "fd01::2/64")
	inner := nic("10.3.0.2/24", "fd02::2/64")
	inner.Gateways = nil
	for _, tt := range []struct {
		name    string
		ports   []workload.Port
		nics    []workload.NIC
		exposed []string
		want    string
	}{
		{"nothing", nil, nil, nil, ""},
		{"exposed", nil, nil, []string{"80/tcp", "443/tcp"}, "80/tcp, 443/tcp"},
		{"exposed range", nil, nil, []string{"80/tcp", "81/tcp", "82/udp"}, "80-81/tcp, 82/udp"},
		{"everywhere", []workload.Port{port(8080, 80, "tcp", netip.Addr{})}, nil, []string{"80/tcp", "443/tcp"},
			"0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp"},
		{"one address", []workload.Port{port(53, 53, "udp", local), port(8080, 80, "tcp", netip.MustParseAddr("::1"))}, nil, nil,
			"127.0.0.1:53->53/udp, [::1]:8080->80/tcp"},
		{"range", []workload.Port{port(8001, 81, "tcp", local), port(8000, 80, "tcp", local), port(8003, 82, "tcp", local)}, nil, nil,
			"127.0.0.1:8000-8001->80-81/tcp, 127.0.0.1:8003->82/tcp"},
		{"range everywhere", []workload.Port{port(8000, 80, "tcp", netip.Addr{}), port(8001, 81, "tcp", netip.Addr{})}, nil, nil,
			"0.0.0.0:8000-8001->80-81/tcp, [::]:8000-8001->80-81/tcp"},
		{"everywhere, by a network of IPv4", []workload.Port{port(8080, 80, "tcp", netip.Addr{})}, []workload.NIC{inner, four, both}, nil,
			"0.0.0.0:8080->80/tcp"},
		{"everywhere, by a network of both", []workload.Port{port(8080, 80, "tcp", netip.Addr{})}, []workload.NIC{inner, both, four}, nil,
			"0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"},
		{"everywhere, by a network of IPv6", []workload.Port{port(8080, 80, "tcp", netip.Addr{})}, []workload.NIC{six}, nil, "[::]:8080->80/tcp"},
	} {
		if got := describePorts(tt.ports, tt.nics, tt.exposed); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}
