// Package network makes the host's half of networks: bridges, addresses,
// interfaces, firewall rules, published ports, and a name server for each
// network. It needs root and is imported by commands only; supervisors reach it
// through package attach.
//
// What is kept of networks:
//
//	root/networks/<name>.json    what was asked of a network; written once
//	run/networks/<name>/         gone after a reboot, like the bridge itself
//	  lock                       held while the bridge, its rules or leases change
//	  leases/<address>           one for each address in use, see Lease; made with
//	                             O_EXCL, so that an address has one owner
//
// A lease is the journal: an interface, a rule or a name without a lease belongs
// to nobody, and an address is not handed out again before everything that
// names it is gone. Repair makes bridges and rules anew from what is recorded.
package network

import (
	"net/netip"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Network is what was asked of one network.
type Network struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"` // 64 hexadecimal digits
	Created time.Time `json:"created"`
	Driver  string    `json:"driver"` // "bridge"
	Subnets []Subnet  `json:"subnets"`
	// Internal has no way out: no default route, no masquerade, no published port.
	Internal bool              `json:"internal,omitempty"`
	MTU      int               `json:"mtu,omitempty"` // bytes, 0 for 1500
	Labels   map[string]string `json:"labels,omitempty"`
	// Bridge is the name of the host's interface.
	Bridge string `json:"bridge"`
}

// Subnet is one subnet of a network, at most one of each family.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway"` // the bridge's own address
	// Range bounds what is handed out without being asked for; the zero Prefix is
	// all of it.
	Range netip.Prefix `json:"range,omitzero"`
}

// Request asks for the network interfaces of one workload that is being started.
type Request struct {
	ID       workload.ID           `json:"id"`
	Name     string                `json:"name"`
	Hostname string                `json:"hostname,omitempty"`
	Networks []workload.Attachment `json:"networks,omitempty"`
	Ports    []workload.Port       `json:"ports,omitempty"`
	// Last and LastPorts are what the workload had when it ran before: it gets the
	// same addresses and host ports again where they are free.
	Last      []workload.NIC  `json:"last,omitempty"`
	LastPorts []workload.Port `json:"lastPorts,omitempty"`
	// Taps asks for tap devices where otherwise the interfaces are moved into a
	// namespace.
	Taps bool `json:"taps,omitempty"`
	// Owner is the user ID that may use the taps: the VMM's.
	Owner uint32 `json:"owner,omitempty"`
}

// Lease is one workload's membership in one network, as recorded.
type Lease struct {
	Workload workload.ID `json:"workload"`
	Network  string      `json:"network"`
	// Names are all under which the name server knows it, without a domain.
	Names []string        `json:"names"`
	NIC   workload.NIC    `json:"nic"`
	Ports []workload.Port `json:"ports,omitempty"` // with the host's ports filled in
}
