package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// inspectNetworks is what a workload has in networks; the names are Docker's.
// Addresses are those of the first network.
type inspectNetworks struct {
	Mode              string
	IPAddress         string
	IPPrefixLen       int
	Gateway           string
	GlobalIPv6Address string
	MacAddress        string
	// Ports has an entry for each port that is exposed or published; null where
	// nothing of the host leads to it.
	Ports    map[string][]inspectPort
	Networks map[string]inspectNetwork
}

type inspectPort struct{ HostIp, HostPort string } //nolint:revive // Docker's spelling

// inspectNetwork is a workload's place in one network.
type inspectNetwork struct {
	Interface           string
	Aliases             []string
	IPAddress           string
	IPPrefixLen         int
	Gateway             string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	IPv6Gateway         string
	MacAddress          string
}

func newInspectNetworks(r *engine.Record) inspectNetworks {
	v := inspectNetworks{Mode: r.Spec.Network, Ports: map[string][]inspectPort{}, Networks: map[string]inspectNetwork{}}
	for _, e := range r.Spec.Exposed {
		v.Ports[e] = nil
	}
	for _, p := range r.Spec.Ports {
		v.Ports[fmt.Sprintf("%d/%s", p.Port, p.Protocol)] = nil
	}
	for _, p := range sortPorts(r.Ports) {
		key := fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		for _, h := range hostsOf(p, r.NICs) {
			v.Ports[key] = append(v.Ports[key], inspectPort{h, strconv.Itoa(int(p.HostPort))})
		}
	}
	for _, a := range r.Spec.Networks {
		n := inspectNetwork{Aliases: a.Aliases}
		if i := slices.IndexFunc(r.NICs, func(n workload.NIC) bool { return n.Network == a.Network }); i >= 0 {
			n.fill(r.NICs[i])
		}
		v.Networks[a.Network] = n
		if a.Network == r.Spec.Networks[0].Network {
			v.IPAddress, v.IPPrefixLen, v.Gateway, v.GlobalIPv6Address, v.MacAddress = n.IPAddress, n.IPPrefixLen, n.Gateway, n.GlobalIPv6Address, n.MacAddress
		}
	}
	return v
}

// fill adds what the NIC is.
func (n *inspectNetwork) fill(nic workload.NIC) {
	n.Interface, n.MacAddress = nic.Name, nic.MAC
	for _, p := range nic.Addresses {
		if p.Addr().Is4() {
			n.IPAddress, n.IPPrefixLen = p.Addr().String(), p.Bits()
		} else {
			n.GlobalIPv6Address, n.GlobalIPv6PrefixLen = p.Addr().String(), p.Bits()
		}
	}
	for _, g := range nic.Gateways {
		if g.Is4() {
			n.Gateway = g.String()
		} else {
			n.IPv6Gateway = g.String()
		}
	}
}
