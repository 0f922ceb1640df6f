package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
)

// A host that was no router must not become one for its neighbours because it has
// networks for workloads. Forwarding can only be switched on for all of it
// (IPv6) or as good as all (IPv4), so the interfaces that it had before are
// guarded: they forward to and from our networks, and answers, and what somebody's
// rule translates on purpose, and nothing else. Interfaces that others make later,
// such as Docker's bridges, are not.
//
// Forwarding is never switched off again, as somebody else may need it by then; so
// the guard stays until the host is started anew.

// guard is what the file records: the guarded interfaces, by family, as Docker
// for one switches on forwarding of IPv4 alone.
type guard struct {
	IPv4 []string `json:"ipv4,omitempty"`
	IPv6 []string `json:"ipv6,omitempty"`
}

func (g *guard) of(family string) *[]string {
	if family == "ipv4" {
		return &g.IPv4
	}
	return &g.IPv6
}

func (s *Store) guardFile() string { return filepath.Join(s.running(), "forwarding") }

// guarded returns the interfaces that are guarded, none if the host forwarded
// before.
func (s *Store) guarded() (guard, error) {
	var g guard
	err := readJSON(s.guardFile(), &g)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return g, fmt.Errorf("read which interfaces are guarded: %w", err)
	}
	for _, f := range []string{"ipv4", "ipv6"} {
		*g.of(f) = slices.DeleteFunc(*g.of(f), func(l string) bool { return l == "" || len(l) > 15 })
	}
	return g, nil
}

const sysctls = "/proc/sys/net"

// families returns those that the host forwards for the network.
func families(n *network.Network) (out []string) {
	if n.Internal {
		return nil
	}
	for _, sub := range n.Subnets {
		if sub.Prefix.Addr().Is4() {
			out = append(out, "ipv4")
		} else {
			out = append(out, "ipv6")
		}
	}
	return out
}

// forwards reports whether the host forwards packets of a family.
func forwards(family string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(sysctls, family, "conf/all/forwarding"))
	if err != nil {
		return false, fmt.Errorf("look whether the host forwards: %w", err)
	}
	return string(bytes.TrimSpace(b)) != "0", nil
}

// planForwarding records which interfaces are guarded from now on, if forwarding
// is to be switched on for the network.
func (s *Store) planForwarding(n *network.Network) error {
	for _, f := range families(n) {
		on, err := forwards(f)
		if err == nil && !on {
			err = s.recordGuard(f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// switchForwarding switches it on, once the guard is up.
func switchForwarding(n *network.Network) error {
	for _, f := range families(n) {
		on, err := forwards(f)
		if err == nil && !on && f == "ipv6" {
			err = keepAdvertisements()
		}
		if err == nil && !on {
			err = set("1", f, "conf", "all", "forwarding")
		}
		if err != nil {
			return err
		}
	}
	did("forwarding on")
	return nil
}

// keepAdvertisements lets interfaces that take their address and default route
// from router advertisements go on to do so: with forwarding on, accept_ra must be
// 2 for that (ip-sysctl.rst), or the host would lose its own way out.
func keepAdvertisements() error {
	entries, err := os.ReadDir(sysctls + "/ipv6/conf")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "all" || e.Name() == "default" || e.Name() == "lo" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(sysctls, "ipv6/conf", e.Name(), "accept_ra"))
		if err == nil && string(bytes.TrimSpace(b)) == "1" {
			if err := set("2", "ipv6", "conf", e.Name(), "accept_ra"); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// recordGuard records every interface of the host that is there now, but those of
// virtual networks, which forward by their nature. One of ours may be there without
// its bridge, as another command is just making it.
func (s *Store) recordGuard(family string) error {
	all, whole, err := dump(netlink.LinkList)
	if err == nil && !whole {
		err = errors.New("they change faster than they can be listed")
	}
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	g, err := s.guarded()
	if err != nil {
		return err
	}
	known := g.of(family)
	for _, l := range all {
		a := l.Attrs()
		if a.MasterIndex == 0 && !strings.HasPrefix(a.Name, "bh-") && !strings.HasPrefix(a.Name, workloadLinks) && !strings.HasPrefix(a.Name, serverLinks) && a.Name != "lo" && !slices.Contains(*known, a.Name) {
			*known = append(*known, a.Name)
		}
	}
	b, err := json.Marshal(g)
	if err == nil {
		err = replace(s.guardFile(), b)
	}
	if err != nil {
		return fmt.Errorf("record which interfaces to guard: %w", err)
	}
	did("guard recorded")
	return nil
}

// bridgeSettings sets what the kernel must know of a bridge: it is no host that
// listens to routers.
func bridgeSettings(n *network.Network) error {
	if !haveIPv6() {
		return nil
	}
	for _, key := range []string{"accept_ra", "autoconf", "accept_dad"} {
		if err := set("0", "ipv6", "conf", n.Bridge, key); err != nil {
			return err
		}
	}
	for _, sub := range n.Subnets {
		if sub.Prefix.Addr().Is6() {
			return nil
		}
	}
	return set("1", "ipv6", "conf", n.Bridge, "disable_ipv6")
}

// localRoutes lets the host itself send from 127.0.0.1 by the bridge, which is
// how a published port works there. The rules let nothing in the other way.
func localRoutes(bridge string) error {
	return set("1", "ipv4", "conf", bridge, "route_localnet")
}

func noIPv6(link string) error {
	if !haveIPv6() {
		return nil
	}
	return set("1", "ipv6", "conf", link, "disable_ipv6")
}

// set writes a kernel setting of networks, of the network namespace that the
// calling thread is in, unless it is so already.
func set(value string, path ...string) error {
	file := filepath.Join(append([]string{sysctls}, path...)...)
	if b, err := os.ReadFile(file); err == nil && string(bytes.TrimSpace(b)) == value {
		return nil
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return fmt.Errorf("set net.%s to %s: %w", strings.Join(path, "."), value, err)
	}
	return nil
}
