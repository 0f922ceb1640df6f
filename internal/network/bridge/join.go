package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A workload that runs gets one more network by the steps of one that starts: the
// lease is recorded, the rules are in force, and then its interface is made. It is
// taken out in the order of a release. In between its other leases are rewritten,
// each of which tells all networks of the workload and, in one of them, its ports:
//
//	Join:  lease ── others ── rules ── interface
//	Part:  others, which get routes and ports ── rules ── interface ── lease
//
// Part may be called again after it was interrupted anywhere, and undoes a Join
// that was.

// join is attach for a workload that runs in all of r.Networks but the last; the
// lock is held.
func (s *Store) join(ctx context.Context, r network.Request) (*Attached, error) {
	want := r.Networks[len(r.Networks)-1]
	leases, left, err := s.standing(r.ID, r.Networks[:len(r.Networks)-1])
	if err != nil {
		return nil, err
	}
	if len(left) > 0 { // of an attempt before
		if err := s.takeBack(ctx, left); err != nil {
			return nil, err
		}
	}
	r.Networks = []workload.Attachment{want}
	added, err := s.activateAll(ctx, r)
	if err != nil {
		return nil, err
	}
	nets, err := s.networksOf(leases)
	if err != nil {
		return nil, err
	}
	a := &Attached{group: s.t.group, raw: r.Raw}
	starting, cancel := context.WithCancel(ctx)
	l, err := s.grantOne(starting, r, leases, append(nets, added[0]), a)
	if err != nil {
		cancel()
		a.wait(ctx) //nolint:errcheck // what was started ends with the lease
		a.Close()
		return nil, errors.Join(err, s.withdraw(context.WithoutCancel(ctx), l, leases, nets))
	}
	context.AfterFunc(ctx, cancel) // they may go on after this
	return a, nil
}

// grantOne gives a workload with these leases what it asks for in the last of
// nets. On error the caller takes back what the lease that it returns names.
func (s *Store) grantOne(ctx context.Context, r network.Request, leases []network.Lease, nets []*network.Network, a *Attached) (network.Lease, error) {
	n := nets[len(nets)-1]
	routed := map[bool]bool{}
	for _, l := range leases {
		for _, g := range l.NIC.Gateways {
			routed[g.Is4()] = true
		}
	}
	l, err := s.planOne(r, r.Networks[0], n, freeName(leases))
	if err != nil {
		return network.Lease{}, err
	}
	l.Networks, l.NIC.Gateways = several(nets), gateways(n, routed)
	if err := s.take(l); err != nil {
		return network.Lease{}, err
	}
	if leases, err = s.tell(leases, nets); err != nil {
		return l, err
	}
	a.servers = s.startServers(ctx, []*network.Network{n})
	if err := s.rule(leaseElements(l)); err != nil {
		return l, err
	}
	if err := a.add(ctx, r, n, l.NIC); err != nil {
		return l, err
	}
	s.describe(&a.Prepared, nets, append(leases, l))
	for _, o := range leases {
		a.Ports = append(a.Ports, o.Ports...)
	}
	a.Warnings, err = s.warnings(ctx, false)
	return l, err
}

// withdraw undoes grantOne.
func (s *Store) withdraw(ctx context.Context, l network.Lease, leases []network.Lease, nets []*network.Network) error {
	if l.Workload == "" {
		return nil // nothing was recorded
	}
	_, err := s.tell(leases, nets)
	return errors.Join(err, s.takeBack(ctx, []network.Lease{l}))
}

// undo takes back what Attach gave.
func (s *Store) undo(ctx context.Context, r network.Request) error {
	if !r.Join {
		return s.Release(ctx, r.ID)
	}
	last := len(r.Networks) - 1
	r.Part, r.Networks, r.Join = r.Networks[last].Network, r.Networks[:last], false
	_, err := s.Part(ctx, r, nil)
	return err
}

// tell rewrites the leases of a workload that is in nets now where they say
// otherwise, and returns them as they are.
func (s *Store) tell(leases []network.Lease, nets []*network.Network) ([]network.Lease, error) {
	leases = slices.Clone(leases)
	for i := range leases {
		l := &leases[i]
		if slices.Equal(l.Networks, several(nets)) {
			continue
		}
		l.Networks = several(nets)
		if err := s.retake(*l); err != nil {
			return leases, fmt.Errorf("record the lease: %w", err)
		}
	}
	return leases, nil
}

// standing returns the leases of a workload in the networks in which it is to be,
// in their order, and those in others.
func (s *Store) standing(id workload.ID, in []workload.Attachment) (leases, left []network.Lease, err error) {
	all, err := s.LeasesOf(id)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range in {
		i := slices.IndexFunc(all, func(l network.Lease) bool { return l.Network == a.Network })
		if i < 0 {
			return nil, nil, network.Invalidf("the workload has nothing in network %q, in which it should be; start it again", a.Network)
		}
		leases = append(leases, all[i])
		all = slices.Delete(all, i, i+1)
	}
	return leases, all, complete(leases)
}

// networksOf returns the networks of leases.
func (s *Store) networksOf(leases []network.Lease) (nets []*network.Network, err error) {
	for _, l := range leases {
		n, err := s.read(l.Network)
		if err != nil {
			return nil, err
		}
		nets = append(nets, n)
	}
	return nets, nil
}

// freeName is the first name of an interface that none of the leases has.
func freeName(leases []network.Lease) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("eth%d", i)
		if !slices.ContainsFunc(leases, func(l network.Lease) bool { return l.NIC.Name == name }) {
			return name
		}
	}
}

// Part takes a workload that runs out of the network r.Part and leaves it in
// r.Networks, which are all others. Default routes and published ports that were
// that network's go on to the first of the others that has a way out; sockets that
// the ports need there are in Reserved, beside those of before. Without one the
// error wraps network.ErrInvalid, and nothing has changed. netns is the workload's
// namespace, in which the routes are changed; nil leaves that to the caller. It may
// be called again, and after any crash.
func (s *Store) Part(ctx context.Context, r network.Request, netns *os.File) (*Attached, error) {
	if _, err := workload.ParseID(string(r.ID)); err != nil {
		return nil, err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	a := &Attached{}
	if err := s.part(ctx, r, netns, a); err != nil {
		a.Close()
		return nil, fmt.Errorf("take workload %s out of network %q: %w", r.ID.Short(), r.Part, err)
	}
	return a, nil
}

func (s *Store) part(ctx context.Context, r network.Request, netns *os.File, a *Attached) error {
	before, left, err := s.standing(r.ID, r.Networks)
	if err != nil {
		return err
	}
	nets, err := s.networksOf(before)
	if err != nil {
		return err
	}
	leases := slices.Clone(before)
	routed := map[bool]bool{}
	for i, n := range nets {
		leases[i].Networks, leases[i].NIC.Gateways = several(nets), gateways(n, routed)
	}
	to, err := a.movePorts(nets, leases, left)
	if err != nil {
		return err
	}
	for i, l := range leases {
		if sameLease(before[i], l) {
			continue
		}
		if err := s.retake(l); err != nil {
			return fmt.Errorf("record the lease: %w", err)
		}
	}
	if to >= 0 {
		if err := s.moveRules(left, leases[to]); err != nil {
			return err
		}
		if err := s.publish(nets[to], leases[to]); err != nil {
			return err
		}
		for i := range left {
			left[i].Ports = nil // their rules are the other's now
		}
	}
	if err := s.takeBack(ctx, left); err != nil {
		return err
	}
	if netns != nil {
		if err := routesIn(netns, leases); err != nil {
			return err
		}
		did("routes moved")
	}
	s.describe(&a.Prepared, nets, leases)
	for _, l := range leases {
		a.Ports = append(a.Ports, l.Ports...)
	}
	return nil
}

// movePorts has the ports of leases that end published by one of those that stay,
// and returns which; -1 if there are none to move. What has to be bound for that
// it adds to a.Reserved.
func (a *Attached) movePorts(nets []*network.Network, leases, left []network.Lease) (to int, err error) {
	to = publisher(nets)
	moved := false
	for _, l := range left {
		if len(l.Ports) == 0 {
			continue
		}
		if to < 0 {
			return -1, network.Invalidf("ports are published by it, and the workload is in no other network that has a way out")
		}
		addrs := addresses(leases[to].NIC)
		if err := checkPorts(l.Ports, addrs); err != nil {
			return -1, fmt.Errorf("publish its ports by network %q: %w", leases[to].Network, err)
		}
		for _, p := range l.Ports {
			fs, err := reserveMore(p, addresses(l.NIC), addrs)
			if err != nil {
				return -1, err
			}
			a.Reserved = append(a.Reserved, fs...)
		}
		leases[to].Ports, moved = l.Ports, true
	}
	if !moved {
		return -1, nil
	}
	return to, nil
}

// reserveMore binds a port in the families that the addresses before did not have.
func reserveMore(p workload.Port, before, now []netip.Addr) ([]*os.File, error) {
	if p.HostIP.IsValid() {
		return nil, nil
	}
	more := slices.DeleteFunc(slices.Clone(now), func(a netip.Addr) bool {
		return slices.ContainsFunc(before, func(b netip.Addr) bool { return a.Is4() == b.Is4() })
	})
	if len(more) == 0 {
		return nil, nil
	}
	return reserveOne(&p, 0, more)
}

func sameLease(a, b network.Lease) bool {
	return slices.Equal(a.Networks, b.Networks) && slices.Equal(a.NIC.Gateways, b.NIC.Gateways) && slices.Equal(a.Ports, b.Ports)
}

// moveRules puts the rules of ports that a lease got from others in the place of
// theirs, in one step.
func (s *Store) moveRules(left []network.Lease, to network.Lease) error {
	var from, now []element
	for _, l := range left {
		for _, p := range l.Ports {
			from = append(from, publishedElements(p, addresses(l.NIC))...)
		}
	}
	for _, p := range to.Ports {
		now = append(now, publishedElements(p, addresses(to.NIC))...)
	}
	err := s.t.swap(from, now)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) || errors.Is(err, unix.EBUSY) {
		err = s.rebuildBut(left) // by hand, or by an attempt before, some were changed already
	}
	if err == nil {
		did("ports moved")
	}
	return err
}

// routesIn makes the default routes in a workload's namespace those of leases.
func routesIn(netns *os.File, leases []network.Lease) error {
	return inside(netns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		for _, l := range leases {
			if len(l.NIC.Gateways) == 0 {
				continue
			}
			link, err := h.LinkByName(l.NIC.Name)
			if err == nil {
				err = defaultRoutes(h, link, l.NIC)
			}
			if err != nil {
				return fmt.Errorf("interface %s: %w", l.NIC.Name, err)
			}
		}
		return nil
	})
}
