package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/bridge"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// networks asks for what workloads in networks need: a kernel with nf_tables,
// addresses of IPv6 if they are to have some, and no other firewall that drops
// their packets. Forwarding is switched on when it is needed.
func networks(m Machine) []Result {
	const name = "networks"
	obstacles, err := m.Firewall()
	switch {
	case errors.Is(err, workload.ErrUnsupported) || refused(err):
		return []Result{missing(name, err.Error(), "boot a kernel with nf_tables, or load the module; --network none and host do without")}
	case err != nil:
		return []Result{unknown(name, err)}
	}
	out := []Result{ok(name, "the kernel has nf_tables"), ipv6(m)}
	for _, o := range obstacles {
		r := warning("firewall", o.Where+": "+o.What, o.Fix)
		if o.Bypassed {
			r = ok("firewall", fmt.Sprintf("%s: %s; %s", o.Where, o.What, o.Fix))
		}
		out = append(out, r)
	}
	if len(obstacles) == 0 {
		out = append(out, ok("firewall", "no other one drops packets of networks, as far as base chains tell"))
	}
	return out
}

// sharedTables are tables of the kernel that all network namespaces fill, the host's
// among them, with fewer entries than which one workload in a network soon takes all:
// a network of the default size has 4094 addresses of IPv4, to each of which it can
// send (arp(7); Documentation/networking/ip-sysctl.rst, nf_conntrack-sysctl.rst).
var sharedTables = []struct {
	name, sysctl string
	few          int
}{
	{"neighbours of IPv4", "net.ipv4.neigh.default.gc_thresh3", 8192},
	{"neighbours of IPv6", "net.ipv6.neigh.default.gc_thresh3", 8192},
	{"tracked connections", "net.netfilter.nf_conntrack_max", 1 << 18},
}

// tables asks how much one workload in a network can take from all. What is not
// there is no table: a kernel without IPv6, or one that tracks nothing yet.
func tables(m Machine) (out []Result) {
	for _, t := range sharedTables {
		text, err := m.ReadFile("/proc/sys/" + strings.ReplaceAll(t.sysctl, ".", "/"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		n, bad := strconv.Atoi(strings.TrimSpace(string(text)))
		switch {
		case err != nil || bad != nil:
			out = append(out, unknown(t.name, errors.Join(err, bad)))
		case n < t.few:
			out = append(out, warning(t.name, fmt.Sprintf("at most %d, of the host and all workloads together: one workload in a network can use them up", n),
				fmt.Sprintf("set the sysctl %s=%d, or more, if workloads in networks may be hostile", t.sysctl, t.few)))
		default:
			out = append(out, ok(t.name, fmt.Sprintf("at most %d, of the host and all workloads together", n)))
		}
	}
	return out
}

// userNetwork asks for what --network user needs.
func userNetwork(m Machine) []Result {
	const name = "user network"
	err := m.UserNetwork()
	switch {
	case errors.Is(err, workload.ErrUnsupported):
		return []Result{missing(name, err.Error(), "install the package passt, and give the host a default route, if you want it")}
	case err != nil:
		return []Result{unknown(name, err)}
	}
	return []Result{ok(name, "passt and pasta are installed, and the host has a default route")}
}

func ipv6(m Machine) Result {
	const name = "IPv6"
	text, err := m.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	if err != nil || strings.TrimSpace(string(text)) != "0" {
		return missing(name, "off: networks have addresses of IPv4 only", "boot without ipv6.disable=1, and set the sysctl net.ipv6.conf.all.disable_ipv6=0, if you want it")
	}
	return ok(name, "on")
}

// firewall asks for obstacles to the networks of a state root.
func firewall(root string) ([]bridge.Obstacle, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	s, err := bridge.Open(abs, filepath.Join(abs, "run"), bridge.Options{})
	if err != nil {
		return nil, err
	}
	return s.Obstacles(context.Background())
}
