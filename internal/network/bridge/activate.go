package bridge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
)

// activate makes sure that the network's bridge is up. That is the last step, so
// a bridge that is up is proof of the others, unless somebody else changed
// something: see Repair. That Docker lets it pass is left to the caller, once for
// all of a workload's networks. The lock is held.
func (s *Store) activate(n *network.Network) error {
	if br, ok := ready(n); ok {
		if err := regroup(br, s.t.group); err != nil {
			return fmt.Errorf("bridge of network %q: %w", n.Name, err)
		}
		return nil
	}
	return s.establish(n)
}

func (s *Store) establish(n *network.Network) error {
	if err := s.stillFree(n); err != nil {
		return err
	}
	return s.erect(n)
}

// erect is establish for a network whose subnets are its own.
func (s *Store) erect(n *network.Network) error {
	if err := s.planForwarding(n); err != nil {
		return err
	}
	if err := s.rebuild(); err != nil { // before there is anything to protect
		return err
	}
	if err := s.cleanseSubnets(n); err != nil {
		return err
	}
	l, err := makeBridge(n, s.t.group)
	if err != nil {
		return err
	}
	if err := switchForwarding(n); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("make the bridge of network %q: %w", n.Name, err)
	}
	did("bridge up")
	return nil
}

// stillFree makes sure that the host has not got a network with the same addresses
// since ours was made or last used. A subnet that nobody asked for gives way.
func (s *Store) stillFree(n *network.Network) error {
	all, err := s.all()
	if err != nil {
		return err
	}
	err = choose(n, all)
	if !errors.Is(err, network.ErrOverlap) {
		return err
	}
	in, lerr := s.membersOf(n.Name)
	if lerr != nil {
		return lerr
	}
	if len(in) > 0 {
		return fmt.Errorf("network %q: %w", n.Name, err)
	}
	changed := false
	for i := range n.Subnets {
		sub := &n.Subnets[i]
		if !sub.Auto {
			continue
		}
		prefix := network.Any4
		if sub.Prefix.Addr().Is6() {
			prefix = network.Any6
		}
		*sub, changed = network.Subnet{Prefix: prefix}, true
	}
	if changed {
		err = choose(n, all)
	}
	if err != nil {
		return fmt.Errorf("network %q: %w", n.Name, err)
	}
	return s.write(*n)
}

// rebuild makes all rules anew from what is recorded, and tells if some were missing.
func (s *Store) rebuild() error { return s.rebuildBut(nil) }

// rebuildBut leaves out some leases.
func (s *Store) rebuildBut(but []network.Lease) error {
	all, err := s.all()
	if err != nil {
		return err
	}
	leases, err := s.allLeases()
	if err != nil {
		return err
	}
	g, err := s.guarded()
	if err != nil {
		return err
	}
	apart, err := s.allApart()
	if err != nil {
		return err
	}
	es := guardElements(g)
	for _, user := range apart {
		es = append(es, apartElement(user))
	}
	for _, n := range all {
		es = append(es, networkElements(&n)...)
	}
	for _, l := range leases {
		left := slices.ContainsFunc(but, func(b network.Lease) bool { return b.Workload == l.Workload && b.Network == l.Network })
		if _, ok := all[l.Network]; ok && !left {
			es = append(es, leaseElements(l)...)
		}
	}
	found, err := s.look()
	if err != nil {
		return err
	}
	if found == missing {
		err = replace(s.untold(), nil)
	}
	if rerr := s.t.rebuild(es); rerr != nil {
		return rerr
	}
	s.tellFlushed()
	did("rules made anew")
	return err
}

// tidy removes what is for networks in general when none is active any more. The
// guard stays, see forwarding.go.
func (s *Store) tidy(ctx context.Context) error {
	if up, err := s.anyBridge(); err != nil || up {
		return err
	}
	g, err := s.guarded()
	if err != nil {
		return err
	}
	err = s.leaveDocker(ctx)
	if len(g.IPv4) == 0 && len(g.IPv6) == 0 {
		err = errors.Join(err, s.t.drop())
	}
	return err
}

// Repair makes bridges, kernel settings, all rules and the name servers anew from
// what is recorded, such as after `nft flush ruleset`. Interfaces that belong to
// nobody go.
func (s *Store) Repair(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err == nil {
		defer unlock()
		err = s.repair(ctx)
	}
	if err != nil {
		return fmt.Errorf("repair the networks: %w", err)
	}
	return nil
}

func (s *Store) repair(ctx context.Context) error {
	if err := s.dropUnowned(); err != nil {
		return err
	}
	all, err := s.all()
	if err != nil {
		return err
	}
	leases, err := s.allLeases()
	if err != nil {
		return err
	}
	in := map[string][]network.Lease{}
	keep := map[string]bool{}
	for _, l := range leases {
		in[l.Network] = append(in[l.Network], l)
		keep[l.NIC.Link] = true
	}
	var errs []error
	bridges := map[int]bool{}
	for name, n := range all {
		br, there := ready(&n)
		if there || len(in[name]) > 0 {
			errs = append(errs, s.repairOne(ctx, &n, in[name]))
			br, there = ready(&n)
		}
		if there {
			bridges[br.Attrs().Index] = true
			keep[serverLink(n.ID)] = len(in[name]) > 0
		}
	}
	if err := s.rebuild(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, orphans(bridges, keep), s.passDocker(ctx, true))...)
}

// repairOne repairs one network and the ports of its members on its bridge.
func (s *Store) repairOne(ctx context.Context, n *network.Network, in []network.Lease) error {
	remake := s.establish
	if _, ok := ready(n); ok {
		remake = s.erect // whatever ways the host has got since, it has its addresses
	}
	if err := remake(n); err != nil {
		return err
	}
	br, ok := ready(n)
	if !ok {
		return fmt.Errorf("the bridge of network %q is gone again", n.Name)
	}
	for _, l := range in {
		// An interface that is gone cannot come back: its other end was the workload's.
		link, err := netlink.LinkByName(l.NIC.Link)
		if isNotFound(err) {
			continue
		}
		if err == nil && (link.Attrs().MasterIndex != br.Attrs().Index || link.Attrs().Group != s.t.group) {
			err = join(link, br, s.t.group)
		}
		if err == nil && len(l.Ports) > 0 {
			err = s.publish(n, l)
		}
		if err != nil {
			return fmt.Errorf("interface %s of workload %s: %w", l.NIC.Link, l.Workload.Short(), err)
		}
	}
	if len(in) > 0 {
		return s.ensureServer(ctx, n)
	}
	return s.stopServer(ctx, n) // if somebody was killed who was about to
}

// dropUnowned removes addresses without a lease, and leases in networks that are
// gone: somebody else removed files.
func (s *Store) dropUnowned() error {
	leases, err := s.allLeases()
	if err != nil {
		return err
	}
	owned := map[string]bool{}
	for _, l := range leases {
		for _, a := range l.NIC.Addresses {
			owned[s.address(l.Network, a.Addr())] = true
		}
	}
	all, err := s.all()
	if err != nil {
		return err
	}
	var errs []error
	for name := range all {
		taken, err := s.taken(name)
		errs = append(errs, err)
		for a := range taken {
			if p := s.address(name, a); !owned[p] {
				errs = append(errs, ignoreMissing(os.Remove(p)))
			}
		}
	}
	return errors.Join(errs...)
}
