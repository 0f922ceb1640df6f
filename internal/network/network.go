// Package network holds the words for networks, which their host's half (package
// bridge), their name servers (package dns) and the supervisors (package attach)
// share. Bridges, addresses, interfaces, firewall rules and published ports are
// made by package bridge, which is imported by commands only.
package network

import (
	"net/netip"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// IDOwner and the network's name own the range of host IDs of its name server, see
// package idrange.
const IDOwner = "network-"

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
	// Auto tells that nobody asked for this very prefix, so that another may take
	// its place while nothing is attached.
	Auto bool `json:"auto,omitempty"`
}

// Request asks for the network interfaces of one workload that is being started,
// or for a change of those of one that runs.
type Request struct {
	ID       workload.ID           `json:"id"`
	Name     string                `json:"name"`
	Hostname string                `json:"hostname,omitempty"`
	Networks []workload.Attachment `json:"networks,omitempty"`
	Ports    []workload.Port       `json:"ports,omitempty"`
	// Upstream are the name servers that the workload asks for in the place of the
	// host's.
	Upstream []netip.Addr `json:"upstream,omitempty"`
	// Last and LastPorts are what the workload had when it ran before: it gets the
	// same addresses and host ports again where they are free.
	Last      []workload.NIC  `json:"last,omitempty"`
	LastPorts []workload.Port `json:"lastPorts,omitempty"`
	// Join tells that the workload runs in all of Networks but the last, which is
	// added. Ports stay as they are.
	Join bool `json:"join,omitempty"`
	// Part is a network that a workload which runs is taken out of; Networks are
	// those that it stays in.
	Part string `json:"part,omitempty"`
	// Taps asks for tap devices where otherwise the interfaces are moved into a
	// namespace.
	Taps bool `json:"taps,omitempty"`
	// Owner is the user ID that may use the taps: the VMM's.
	Owner uint32 `json:"owner,omitempty"`
	// Raw tells that programs of a workload without Taps may send frames of their own
	// making: they have CAP_NET_RAW.
	Raw bool `json:"raw,omitempty"`
	// User asks for the network "user" in the place of Networks, whose process has
	// the user ID Helper: one that is no other workload's.
	User   bool   `json:"user,omitempty"`
	Helper uint32 `json:"helper,omitempty"`
}

// Lease is one workload's membership in one network, as recorded.
type Lease struct {
	Workload workload.ID `json:"workload"`
	Network  string      `json:"network"`
	// Networks are all that the workload is in, if there are several: a name server
	// of one of them tells it about the others.
	Networks []string `json:"networks,omitempty"`
	// Names are all under which the name server knows it, without a domain.
	Names []string `json:"names"`
	// Upstream are the servers that the name server asks for this workload, none for
	// those that it asks for all.
	Upstream []netip.Addr    `json:"upstream,omitempty"`
	NIC      workload.NIC    `json:"nic"`
	Ports    []workload.Port `json:"ports,omitempty"` // with the host's ports filled in
}

// Prepared is what a workload has in all its networks.
type Prepared struct {
	NICs  []workload.NIC  `json:"nics"`            // in the order of Request.Networks
	Ports []workload.Port `json:"ports,omitempty"` // with the host's ports filled in
	// Nameservers are where the workload asks for names in all its networks: those
	// of one of them; none if all are too small to have one.
	Nameservers []netip.Addr `json:"nameservers,omitempty"`
	// Forward tells that Nameservers ask Request.Upstream for the workload, which
	// therefore need not.
	Forward bool `json:"forward,omitempty"`
	// Host is the host as seen from the workload, at most one address of each
	// family: the gateway of the first network.
	Host []netip.Addr `json:"host,omitempty"`
	// Warnings are sentences for the person who started the workload, such as that
	// a firewall of the host will stop its packets.
	Warnings []string `json:"warnings,omitempty"`
}
