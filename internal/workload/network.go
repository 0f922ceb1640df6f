package workload

import (
	"net/netip"
	"slices"
	"strings"
)

// Networks that are not made by anybody.
const (
	NetworkNone   = "none"   // loopback alone
	NetworkHost   = "host"   // the host's own
	NetworkBridge = "bridge" // one or more networks of the engine: Spec.Networks
	NetworkUser   = "user"   // the host's connections, made for the workload by a process without privilege
)

// DefaultNetwork is the name of the network that exists without being made.
const DefaultNetwork = "bridge"

// Attachment is a wish to be in one network of the engine. Each becomes one
// NIC, in their order: eth0, eth1, …
type Attachment struct {
	Network string `json:"network"` // its name
	// Aliases are names of the workload in this network, beside its own name,
	// its short ID and its host name.
	Aliases []string `json:"aliases,omitempty"`
	// IPv4, IPv6 and MAC are what the NIC is to have; zero leaves the choice to
	// the network. MAC is in the form 02:42:ac:11:00:02.
	IPv4 netip.Addr `json:"ipv4,omitzero"`
	IPv6 netip.Addr `json:"ipv6,omitzero"`
	MAC  string     `json:"mac,omitempty"`
}

// Port is one port of the workload that the host publishes.
type Port struct {
	// HostIP is the host's address on which it is published; the zero Addr stands
	// for all of them, of both families.
	HostIP netip.Addr `json:"hostIP,omitzero"`
	// HostPort is the host's port, 0 for one that is free at the start. With
	// HostPortEnd it begins a range, both ends included, of which one that is free
	// at the start is taken.
	HostPort    uint16 `json:"hostPort,omitempty"`
	HostPortEnd uint16 `json:"hostPortEnd,omitempty"`
	Port        uint16 `json:"port"`     // inside, 1 to 65535
	Protocol    string `json:"protocol"` // "tcp" or "udp"
}

// DNS is how a workload looks names up; zero fields leave it to the network.
type DNS struct {
	Servers []netip.Addr `json:"servers,omitempty"`
	Search  []string     `json:"search,omitempty"`
	Options []string     `json:"options,omitempty"` // resolv.conf(5)
}

// HostEntry is one line of /etc/hosts.
type HostEntry struct {
	Name string `json:"name"`
	// Addr is the address; the zero Addr is the host as seen from the workload
	// ("host-gateway").
	Addr netip.Addr `json:"addr,omitzero"`
}

// NIC is one network interface of a workload, as it is: all that whoever
// configures it inside must know. Two sides agree on it by MAC.
type NIC struct {
	Name      string         `json:"name"`    // inside: "eth0"
	Network   string         `json:"network"` // whose member it is
	NetworkID string         `json:"networkID,omitempty"`
	Link      string         `json:"link"` // the host's end: a veth or a tap; "" if there is none
	MAC       string         `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"`
	// Gateways are the next hops of the default routes, at most one of each
	// family; none in an internal network or beside another NIC's.
	Gateways []netip.Addr `json:"gateways,omitempty"`
	MTU      int          `json:"mtu"` // bytes, 1280 to 65535
}

// RawSockets tells whether the workload's programs may send packets of their own making:
// CAP_NET_RAW is added, alone or with all, and not dropped by its name.
func (s Security) RawSockets() bool {
	has := func(list []string, names ...string) bool {
		return slices.ContainsFunc(list, func(c string) bool {
			return slices.Contains(names, strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
		})
	}
	return has(s.CapAdd, "ALL", "NET_RAW") && !has(s.CapDrop, "NET_RAW")
}
