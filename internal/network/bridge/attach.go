package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/dial"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Attached is what Attach made for one workload.
type Attached struct {
	network.Prepared
	// Taps are the tap devices, in the order of NICs, where they were asked for.
	Taps []*os.File
	// Reserved are bound sockets that keep the host's ports from others. Whoever
	// owns the workload keeps them as long as it runs.
	Reserved []*os.File

	fresh   []workload.NIC // those of the NICs that Enter makes
	bridges []string       // of fresh
	group   uint32         // of interfaces of the host, see linkGroup
	raw     bool           // the workload has raw sockets, see finish
	servers servers
}

// servers are name servers that start while the workload is made.
type servers struct {
	begun chan struct{} // closed when they need the networks' lock no more
	// answer gets nil when all answer questions, and why not where one could not be
	// started; it is nil itself once that was awaited.
	answer chan error
}

// Attach gives a workload its addresses, ports and rules, and taps if they are
// asked for. What the workload had before, it loses; with r.Join it keeps it, and
// gets what is new beside it. On error nothing new is left.
// Enter is next, but for taps with r.Join. It waits until the name servers answer; others
// who change networks wait until their processes are made. The error wraps
// network.ErrNotFound, ErrExhausted, ErrAddressTaken, ErrPortTaken or ErrInvalid, or
// workload.ErrUnsupported.
func (s *Store) Attach(ctx context.Context, r network.Request) (*Attached, error) {
	fail := func(err error) (*Attached, error) {
		return nil, fmt.Errorf("attach workload %s to its networks: %w", r.ID.Short(), err)
	}
	if err := check(r); err != nil {
		return fail(err)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return fail(err)
	}
	a, err := s.attach(ctx, r)
	if err != nil {
		unlock()
		return fail(err)
	}
	go func() {
		<-a.servers.begun
		unlock()
	}()
	if !r.Taps || !r.Join {
		return a, nil
	}
	if err := a.wait(ctx); err != nil { // as there will be no Enter
		a.Close()
		return fail(errors.Join(err, s.undo(context.WithoutCancel(ctx), r)))
	}
	return a, nil
}

// wait returns when the name servers answer, or could not be started.
func (a *Attached) wait(ctx context.Context) error {
	if a.servers.answer == nil {
		return nil
	}
	defer trace.Step(ctx, "name server awaited").End()
	err := <-a.servers.answer
	a.servers.answer = nil
	return err
}

// attach is Attach up to the point where name servers may go on to start; the lock
// is held, and stays so until they need it no more.
func (s *Store) attach(ctx context.Context, r network.Request) (*Attached, error) {
	if r.Join {
		return s.join(ctx, r)
	}
	if err := s.release(ctx, r.ID); err != nil {
		return nil, fmt.Errorf("take back what it had before: %w", err)
	}
	activating := trace.Step(ctx, "bridge and firewall looked at")
	nets, err := s.activateAll(ctx, r)
	activating.End()
	if err != nil {
		return nil, err
	}
	a := &Attached{group: s.t.group, raw: r.Raw}
	starting, cancel := context.WithCancel(ctx)
	if err := s.grant(starting, r, nets, a); err != nil {
		cancel()
		a.wait(ctx) //nolint:errcheck // release ends what was started
		a.Close()
		return nil, errors.Join(err, s.release(context.WithoutCancel(ctx), r.ID))
	}
	context.AfterFunc(ctx, cancel) // they may go on after this
	return a, nil
}

// startServers makes sure that the networks' name servers run. Their start takes
// as long as all else of an attachment, which goes on meanwhile; each has its
// sockets first, so that a question waits for it and is not lost. The leases are
// recorded: who finds a server finds somebody who is to ask it.
func (s *Store) startServers(ctx context.Context, nets []*network.Network) servers {
	v := servers{begun: make(chan struct{}), answer: make(chan error, 1)}
	ctx, starting := trace.Begin(ctx, "name server ready")
	go func() {
		answers := make([]func(context.Context) error, len(nets))
		var errs []error
		for i, n := range nets {
			var err error
			if answers[i], err = s.beginServer(ctx, n); err != nil {
				errs = append(errs, err)
			}
		}
		close(v.begun)
		for i, wait := range answers {
			if wait == nil {
				continue
			}
			if err := wait(ctx); err != nil && !s.replaced(ctx, nets[i]) {
				errs = append(errs, err)
			}
		}
		starting.End()
		v.answer <- errors.Join(errs...)
	}()
	return v
}

// replaced reports whether a network's name server, which has ended, gave way to
// another that somebody else needs. It takes the networks' lock, and says no where ctx
// ends before it has it.
func (s *Store) replaced(ctx context.Context, n *network.Network) bool {
	unlock, err := s.lock(ctx)
	if err != nil {
		return false
	}
	defer unlock()
	_, err = dns.Find(s.server(n.Name))
	return err == nil
}

func check(r network.Request) error {
	if _, err := workload.ParseID(string(r.ID)); err != nil {
		return err
	}
	if len(r.Networks) == 0 {
		return network.Invalidf("no network is named")
	}
	for i, a := range r.Networks {
		if slices.ContainsFunc(r.Networks[:i], func(b workload.Attachment) bool { return a.Network == b.Network }) {
			return network.Invalidf("network %q is named twice", a.Network)
		}
		if a.MAC == "" {
			continue
		}
		mac, err := net.ParseMAC(a.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
			return network.Invalidf("MAC address %q: want six bytes such as 02:42:ac:11:00:02, not those of a group", a.MAC)
		}
	}
	return nil
}

// activateAll returns the networks that are asked for, each ready for use.
func (s *Store) activateAll(ctx context.Context, r network.Request) ([]*network.Network, error) {
	var nets []*network.Network
	for _, a := range r.Networks {
		n, err := s.read(a.Network)
		if err != nil && a.Network == workload.DefaultNetwork {
			n, err = s.ensureDefault(ctx)
		}
		if err == nil {
			err = s.activate(n)
		}
		if err != nil {
			return nil, err
		}
		nets = append(nets, n)
	}
	if err := s.passDocker(ctx, false); err != nil { // it may have come meanwhile
		return nil, err
	}
	return nets, s.unflush()
}

// grant gives the workload what it asks for in the networks, and describes it in a.
// On error the caller takes back what has been given.
func (s *Store) grant(ctx context.Context, r network.Request, nets []*network.Network, a *Attached) error {
	leasing := trace.Step(ctx, "addresses and ports taken")
	defer leasing.End()
	leases, err := s.plan(r, nets)
	if err != nil {
		return err
	}
	publish := publisher(nets)
	if len(r.Ports) > 0 {
		if publish < 0 {
			return network.Invalidf("an internal network has no published ports")
		}
		l := &leases[publish]
		addrs := addresses(l.NIC)
		if err := checkPorts(r.Ports, addrs); err != nil {
			return err
		}
		if a.Ports, a.Reserved, err = reserve(r.Ports, r.LastPorts, addrs); err != nil {
			return err
		}
		l.Ports = a.Ports
	}
	var es []element
	for _, l := range leases {
		if err := s.take(l); err != nil {
			return err
		}
		es = append(es, leaseElements(l)...)
	}
	leasing.End()
	a.servers = s.startServers(ctx, nets)
	ruling := trace.Step(ctx, "rules added")
	defer ruling.End()
	if err := s.rule(es); err != nil {
		return err
	}
	if len(a.Ports) > 0 {
		if err := s.publish(nets[publish], leases[publish]); err != nil {
			return err
		}
	}
	ruling.End()
	for i, l := range leases {
		if err := a.add(ctx, r, nets[i], l.NIC); err != nil {
			return err
		}
	}
	defer trace.Step(ctx, "other firewalls looked at").End()
	s.describe(&a.Prepared, nets, leases)
	open := slices.ContainsFunc(a.Ports, func(p workload.Port) bool { return !p.HostIP.IsLoopback() })
	a.Warnings, err = s.warnings(ctx, open)
	return err
}

// rule puts the rules of leases that are recorded in force.
func (s *Store) rule(es []element) error {
	err := s.t.add(es)
	if errors.Is(err, os.ErrNotExist) {
		err = s.rebuild() // somebody flushed the rules: they come back with ours
	} else if errors.Is(err, os.ErrExist) || errors.Is(err, unix.EBUSY) {
		// Whoever had a port has let go of it, and not yet of its rule.
		err = fmt.Errorf("publish ports: %w: one is still that of a workload which is ending", network.ErrPortTaken)
	}
	if err == nil {
		did("rules added")
	}
	return err
}

// add makes the tap of an interface, or leaves the interface to Enter.
func (a *Attached) add(ctx context.Context, r network.Request, n *network.Network, nic workload.NIC) error {
	a.fresh, a.bridges = append(a.fresh, nic), append(a.bridges, n.Bridge)
	if !r.Taps {
		return nil
	}
	br, ok := ready(n)
	if !ok {
		return fmt.Errorf("the bridge of network %q is gone", n.Name)
	}
	making := trace.Step(ctx, "tap device made")
	f, err := makeTap(br, nic, r.Owner, a.group)
	making.End()
	if err != nil {
		return err
	}
	a.Taps = append(a.Taps, f)
	did("tap ready")
	return nil
}

// describe says what a workload has by its leases in nets, of the same order.
func (s *Store) describe(p *network.Prepared, nets []*network.Network, leases []network.Lease) {
	for _, l := range leases {
		p.NICs = append(p.NICs, l.NIC)
	}
	if s.o.DNSProgram != "" {
		var i int
		i, p.Nameservers = asked(nets)
		p.Forward = i >= 0 && len(leases[i].Upstream) > 0
	}
	if len(nets) > 0 {
		for _, sub := range nets[0].Subnets {
			p.Host = append(p.Host, sub.Gateway)
		}
	}
}

// asked are the name servers that a workload asks: those of one network, as each
// knows the names in all networks of the workload; of one with a way out, if there
// is one, as the others know no other names.
func asked(nets []*network.Network) (of int, addrs []netip.Addr) {
	for _, internal := range []bool{false, true} {
		for i, n := range nets {
			if addrs = nameservers(n); n.Internal == internal && len(addrs) > 0 {
				return i, addrs
			}
		}
	}
	return -1, nil
}

// forwarded are the servers of a workload's own that the name server of a network
// asks for it: all, or none if one of them means something else on the host, or is
// this name server, or would be a way out of an internal network, as the host is by
// the gateway's address. The workload asks those itself.
func forwarded(servers []netip.Addr, n *network.Network) []netip.Addr {
	for _, a := range servers {
		itself := slices.Contains(nameservers(n), a)
		within := slices.ContainsFunc(n.Subnets, func(s network.Subnet) bool { return s.Host(a) && a != s.Gateway })
		if !dial.Usable(a) || itself || n.Internal && !within {
			return nil
		}
	}
	return servers
}

// publisher is the network by which ports are published: the first with a way
// out, -1 if there is none.
func publisher(nets []*network.Network) int {
	return slices.IndexFunc(nets, func(n *network.Network) bool { return !n.Internal })
}

func addresses(nic workload.NIC) (out []netip.Addr) {
	for _, p := range nic.Addresses {
		out = append(out, p.Addr())
	}
	return out
}

// plan chooses names and addresses. Nothing is recorded yet but the cursors and
// marks of addresses; a mark without an owner does no harm.
func (s *Store) plan(r network.Request, nets []*network.Network) ([]network.Lease, error) {
	routed := map[bool]bool{} // a family that has a default route already
	var leases []network.Lease
	for i, n := range nets {
		l, err := s.planOne(r, r.Networks[i], n, fmt.Sprintf("eth%d", i))
		if err != nil {
			return nil, err
		}
		l.Networks, l.NIC.Gateways = several(nets), gateways(n, routed)
		leases = append(leases, l)
	}
	return leases, nil
}

// planOne chooses what a workload has in one network but its routes, which depend
// on the others. ifname is the interface inside.
func (s *Store) planOne(r network.Request, want workload.Attachment, n *network.Network, ifname string) (network.Lease, error) {
	l := network.Lease{Workload: r.ID, Network: n.Name, Names: names(r, want), Upstream: forwarded(r.Upstream, n)}
	l.NIC = workload.NIC{Name: ifname, Network: n.Name, NetworkID: n.ID, Link: linkName(r.ID, n.ID), MTU: mtu(n)}
	err := s.planAddresses(r.ID, n, want, last(r, n.Name), &l.NIC)
	if err == nil {
		err = s.planMAC(n, want, &l.NIC)
	}
	if err != nil {
		return l, fmt.Errorf("network %q: %w", n.Name, err)
	}
	return l, nil
}

// several are the names of the networks that each lease of a workload tells; nil
// for a single one.
func several(nets []*network.Network) (names []string) {
	if len(nets) > 1 {
		for _, n := range nets {
			names = append(names, n.Name)
		}
	}
	return names
}

// gateways are the default routes by a network: those of the families that no
// network before it has, which routed tells.
func gateways(n *network.Network, routed map[bool]bool) (out []netip.Addr) {
	for _, sub := range n.Subnets {
		four := sub.Gateway.Is4()
		if !n.Internal && !routed[four] {
			out, routed[four] = append(out, sub.Gateway), true
		}
	}
	return out
}

// names are all that the name server knows a workload by: its own first.
func names(r network.Request, want workload.Attachment) (out []string) {
	for _, n := range append([]string{r.Name, r.Hostname, r.ID.Short()}, want.Aliases...) {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// last is what the workload had in a network when it ran before.
func last(r network.Request, network string) workload.NIC {
	for _, nic := range r.Last {
		if nic.Network == network {
			return nic
		}
	}
	return workload.NIC{}
}

func (s *Store) planAddresses(id workload.ID, n *network.Network, want workload.Attachment, before workload.NIC, nic *workload.NIC) error {
	taken, err := s.taken(n.Name)
	if err != nil {
		return err
	}
	var c cursors
	if err := readJSON(s.cursor(n.Name), &c); err != nil && !errors.Is(err, os.ErrNotExist) {
		c = cursors{} // it only says where to begin
	}
	wanted := map[bool]netip.Addr{true: want.IPv4, false: want.IPv6}
	var picked []pickedAddress
	for _, sub := range n.Subnets {
		four := sub.Prefix.Addr().Is4()
		var old netip.Addr
		for _, p := range before.Addresses {
			if p.Addr().Is4() == four {
				old = p.Addr()
			}
		}
		t := c.of(sub.Prefix)
		a, err := pick(sub, wanted[four], old, t.Last, taken)
		if err != nil {
			return err
		}
		p := pickedAddress{addr: a, chosen: wanted[four].IsValid() || a == old}
		if !p.chosen {
			t.Again = t.Again || t.Last.IsValid() && a.Compare(t.Last) <= 0
			t.Last, p.again = a, t.Again
		}
		picked = append(picked, p)
		delete(wanted, four)
		nic.Addresses = append(nic.Addresses, prefixAt(a, sub.Prefix))
	}
	for _, a := range wanted {
		if a.IsValid() {
			return network.Invalidf("it has no %s, so that %s is not an address in it", familyName(a), a)
		}
	}
	b, err := json.Marshal(c)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.cursor(n.Name)), 0o700)
	}
	if err == nil {
		err = replace(s.cursor(n.Name), b)
	}
	if err != nil {
		return fmt.Errorf("record the address: %w", err)
	}
	did("cursor moved")
	return s.cleanse(id, n.Name, picked)
}

// planMAC takes the wanted MAC address, or one that comes from the IP address, so
// that a neighbour that remembers the address's last owner is not misled. If another
// workload has asked for that one, it is the next with another second byte.
func (s *Store) planMAC(n *network.Network, want workload.Attachment, nic *workload.NIC) error {
	a := nic.Addresses[0].Addr().As16()
	mac := net.HardwareAddr{0x02, 0x42, a[12], a[13], a[14], a[15]}
	chosen := want.MAC != ""
	if chosen {
		var err error
		if mac, err = net.ParseMAC(want.MAC); err != nil {
			return network.Invalidf("%v", err)
		}
	}
	in, err := s.macs(n.Name, chosen)
	if err != nil {
		return err
	}
	for last := mac[1] - 1; ; mac[1]++ {
		nic.MAC = mac.String()
		if err := freeMAC(nic.MAC, n, in); err == nil || chosen || mac[1] == last {
			return err
		}
	}
}

// macs returns the members of a network who may have the MAC address that another is
// about to get. Those that come from IP addresses differ, so until a workload chooses
// one nobody is looked at, which takes the longer the more there are.
func (s *Store) macs(name string, chosen bool) ([]network.Lease, error) {
	mark := s.chosenMAC(name)
	if chosen {
		if err := replace(mark, nil); err != nil {
			return nil, err
		}
	} else if _, err := os.Lstat(mark); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return s.membersOf(name)
}

// freeMAC returns an error if a member of a network has a MAC address, or the network
// itself.
func freeMAC(mac string, n *network.Network, in []network.Lease) error {
	for _, l := range in {
		if l.NIC.MAC == mac {
			return fmt.Errorf("%w: MAC address %s %s", network.ErrAddressTaken, mac, who([]network.Lease{l}))
		}
	}
	if mac == linkMAC(n.Bridge).String() || mac == serverMAC(n.ID).String() {
		return fmt.Errorf("%w: MAC address %s is the network's own", network.ErrAddressTaken, mac)
	}
	return nil
}

// publish does what a published port takes beside the rules.
func (s *Store) publish(n *network.Network, l network.Lease) error {
	for _, p := range l.Ports {
		if !p.HostIP.IsValid() || p.HostIP.Is4() && (p.HostIP.IsLoopback() || p.HostIP.IsUnspecified()) {
			if err := localRoutes(n.Bridge); err != nil {
				return err
			}
			break
		}
	}
	// A client that sent datagrams to the port before it was published goes on
	// past the new rules until its flow is forgotten.
	return forgetPorts(l.Ports)
}

// Close closes the descriptors of Taps and Reserved. The workload stays attached.
func (a *Attached) Close() error {
	closeAll(a.Taps)
	closeAll(a.Reserved)
	a.Taps, a.Reserved = nil, nil
	return nil
}
