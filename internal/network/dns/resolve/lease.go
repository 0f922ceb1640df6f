package resolve

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/dial"
)

const (
	maxLease    = 64 << 10 // bytes of a file
	maxNames    = 128      // names of one lease
	maxNetworks = 32       // networks of one workload that are looked at
)

// A lease is what the name server knows of an address.
type lease struct {
	workload string
	names    []string // in lower case, without a final dot; each once
	networks []string // all that the workload is in, if there are several
	// upstream are the servers that are asked for it in the place of the network's,
	// none if those are; address is where its lease is found.
	upstream []netip.Addr
	address  netip.Addr
}

// parseLease reads a file of the leases' directory: network.Lease, of which only
// these fields have to be in order.
func parseLease(b []byte, network string) (*lease, error) {
	var f struct {
		Workload string   `json:"workload"`
		Network  string   `json:"network"`
		Names    []string `json:"names"`
		Networks []string `json:"networks"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Workload == "" || len(f.Workload) > maxName {
		return nil, fmt.Errorf("a lease of workload %.20q", f.Workload)
	}
	if f.Network != network {
		return nil, fmt.Errorf("a lease of network %.80q", f.Network)
	}
	l := &lease{workload: f.Workload, networks: f.Networks[:min(len(f.Networks), maxNetworks)], upstream: dial.Servers(b)}
	seen := map[string]bool{}
	for _, name := range f.Names[:min(len(f.Names), maxNames)] {
		if name, ok := normal(name); ok && !seen[name] {
			seen[name] = true
			l.names = append(l.names, name)
		}
	}
	return l, nil
}

// normal returns a name as it is compared: in lower case, without a final dot.
func normal(name string) (string, bool) {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName-2 {
		return "", false
	}
	b := []byte(name)
	for i, c := range b {
		if c <= ' ' || c == 0x7f {
			return "", false
		}
		b[i] = lower(c)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return "", false
		}
	}
	return string(b), true
}

// reverse returns the address that a name below in-addr.arpa or ip6.arpa stands
// for, if it stands for one.
func reverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var a [16]byte
	for i := range 32 {
		digit := strings.IndexByte("0123456789abcdef", rest[62-2*i])
		if digit < 0 || i < 31 && rest[61-2*i] != '.' {
			return netip.Addr{}, false
		}
		a[i/2] |= byte(digit << (4 - i%2*4))
	}
	return netip.AddrFrom16(a), true
}
