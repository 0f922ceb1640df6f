package bridge

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// idLength is that of a workload's ID, with which members' files begin.
const idLength = 64

func (s *Store) member(id workload.ID, name string) string {
	return filepath.Join(s.members(), string(id)+"-"+name)
}

// memberName takes the name of a member's file apart.
func memberName(file string) (id workload.ID, name string, ok bool) {
	if len(file) < idLength+2 || file[idLength] != '-' {
		return "", "", false
	}
	id, err := workload.ParseID(file[:idLength])
	name = file[idLength+1:]
	return id, name, err == nil && network.CheckName(name) == nil
}

// record writes a lease down, and takes its addresses. When it fails nothing is
// left.
func (s *Store) take(l network.Lease) error {
	fail := func(err error) error {
		s.give(l)
		return fmt.Errorf("record the lease: %w", err)
	}
	b, err := json.Marshal(l)
	if err != nil {
		return fail(err)
	}
	if err := s.openLeases(l.Network); err != nil {
		return fail(err)
	}
	member := s.member(l.Workload, l.Network)
	if err := replaceMode(member, b, leaseMode); err != nil {
		return fail(err)
	}
	did("lease recorded")
	for i, a := range l.NIC.Addresses {
		err := os.Link(member, s.address(l.Network, a.Addr()))
		if errors.Is(err, os.ErrExist) {
			l.NIC.Addresses = l.NIC.Addresses[:i] // the others are not ours
			s.give(l)
			return fmt.Errorf("%w: %s", network.ErrAddressTaken, a.Addr())
		}
		if err != nil {
			return fail(err)
		}
		did("address taken")
	}
	return nil
}

// cleanse makes addresses good for a new owner. The kernel goes on to translate a
// flow as it began to, whatever the rules say by then, so the flows of an earlier
// owner are forgotten. That looks at every flow of the host, so it is not done for
// addresses that nobody can have had since cleanseSubnets: those that come in turn
// while they have not gone round, and were not chosen out of turn, which leaves a
// mark.
func (s *Store) cleanse(id workload.ID, name string, picked []pickedAddress) error {
	for _, p := range picked {
		mark := filepath.Join(s.used(name), p.addr.String())
		owner, err := os.Readlink(mark)
		marked := err == nil
		if p.chosen && marked && owner == string(id) {
			continue // nobody else had it since
		}
		if p.chosen || p.again || marked {
			if err := forgetAddress(p.addr); err != nil {
				return err
			}
		}
		if marked {
			if err := os.Remove(mark); err != nil {
				return err
			}
		}
		if !p.chosen {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(mark), 0o700); err != nil {
			return err
		}
		if err := os.Symlink(string(id), mark); err != nil {
			return err
		}
		did("address marked as used")
	}
	return nil
}

// cleanseSubnets makes all addresses of a network good for their first owners. A
// network that was removed may have had them, of which neither cursor nor mark is
// left. It is for a network whose bridge is not up yet; where workloads are in it,
// its addresses have been good since before they came.
func (s *Store) cleanseSubnets(n *network.Network) error {
	in, err := s.membersOf(n.Name)
	if err != nil || len(in) > 0 {
		return err
	}
	for _, sub := range n.Subnets {
		if err := forgetPrefix(sub.Prefix); err != nil {
			return err
		}
	}
	return nil
}

// pickedAddress is an address on its way to an owner.
type pickedAddress struct {
	addr   netip.Addr
	chosen bool // out of turn
	again  bool // all addresses have had their turn
}

// leaseMode lets name servers read leases, whose users nobody else is. The
// directories above keep everybody out who is not shown the inner ones.
const leaseMode = 0o644

// openLeases makes the directory of a network's leases, which every network's
// name server can look into.
func (s *Store) openLeases(name string) error {
	dir := s.leases(name)
	for _, d := range []string{s.active(), filepath.Dir(dir), dir} {
		if fi, err := os.Stat(d); err == nil && fi.Mode().Perm() == 0o755 {
			continue
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(d, 0o755); err != nil { // whatever the umask is
			return err
		}
	}
	return nil
}

// retake records a lease anew whose addresses stay. Each file is replaced whole; a
// crash in between leaves old and new, both true enough until the next change.
func (s *Store) retake(l network.Lease) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := replaceMode(s.member(l.Workload, l.Network), b, leaseMode); err != nil {
		return err
	}
	did("lease rewritten")
	for _, a := range l.NIC.Addresses {
		tmp := filepath.Join(s.leases(l.Network), ".new-"+a.Addr().String())
		os.Remove(tmp)
		err := os.Link(s.member(l.Workload, l.Network), tmp)
		if err == nil {
			err = os.Rename(tmp, s.address(l.Network, a.Addr()))
		}
		if err != nil {
			return err
		}
		did("address rewritten")
	}
	return nil
}

func (s *Store) address(name string, a netip.Addr) string {
	return filepath.Join(s.leases(name), a.String())
}

// give gives a lease's addresses back, and then the lease. It may be called again.
func (s *Store) give(l network.Lease) error {
	member := s.member(l.Workload, l.Network)
	var errs []error
	for _, a := range l.NIC.Addresses {
		errs = append(errs, ignoreMissing(os.Remove(s.address(l.Network, a.Addr()))))
		did("address given back")
	}
	errs = append(errs, ignoreMissing(os.Remove(member)))
	did("lease removed")
	return errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// readLeases reads the leases whose files want accepts. Of one that is damaged there are
// the remains, with a warning; what cannot be read is an error.
func (s *Store) readLeases(want func(id workload.ID, name string) bool) ([]network.Lease, error) {
	entries, err := os.ReadDir(s.members())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var out []network.Lease
	for _, e := range entries {
		id, name, ok := memberName(e.Name())
		if !ok || !want(id, name) {
			continue
		}
		var l network.Lease
		err := readJSON(filepath.Join(s.members(), e.Name()), &l)
		if errors.Is(err, os.ErrNotExist) {
			continue // released meanwhile
		}
		if err == nil && (l.Workload != id || l.Network != name || len(l.NIC.Link) > 15) {
			err = fmt.Errorf("it is of workload %q in network %q", l.Workload, l.Network)
		}
		var cannot syscall.Errno // be read: who knows what is in it
		if err != nil && !errors.As(err, &cannot) {
			s.cutOff(id, name, err)
			l, err = s.remains(id, name)
		}
		if err != nil {
			return nil, fmt.Errorf("read lease %s: %w", e.Name(), err)
		}
		out = append(out, l)
	}
	return out, nil
}

// cutOff warns of a lease that is damaged, once.
func (s *Store) cutOff(id workload.ID, name string, why error) {
	if _, told := s.warned.LoadOrStore(string(id)+"-"+name, true); !told && s.o.Warn != nil {
		s.o.Warn(fmt.Sprintf("workload %s is cut off from network %s until it is started again: %v", id.Short(), name, why))
	}
}

// remains is what a damaged lease is still good for: to be taken back. It has the
// interface, whose name follows from the workload, and the addresses, which are other
// names of the file. It has no MAC address, and so no rules: see hollow.
func (s *Store) remains(id workload.ID, name string) (network.Lease, error) {
	l := network.Lease{Workload: id, Network: name}
	n, err := s.read(name)
	if err == nil {
		l.NIC.Link = linkName(id, n.ID)
	} else if !errors.Is(err, network.ErrNotFound) && !errors.Is(err, network.ErrDamaged) {
		return l, err
	}
	member, err := os.Stat(s.member(id, name))
	if err != nil {
		return l, ignoreMissing(err) // released meanwhile
	}
	taken, err := s.taken(name)
	if err != nil {
		return l, err
	}
	for a := range taken {
		if fi, err := os.Stat(s.address(name, a)); err == nil && os.SameFile(fi, member) {
			l.NIC.Addresses = append(l.NIC.Addresses, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return l, nil
}

// hollow reports whether a lease is only the remains of one. Rules by it are unknown.
func hollow(l network.Lease) bool { return l.NIC.MAC == "" }

// complete returns an error if one of the leases of a workload is hollow: what is made of
// them would be recorded.
func complete(leases []network.Lease) error {
	for _, l := range leases {
		if hollow(l) {
			return network.Invalidf("what is recorded of the workload in network %q is damaged; start it again", l.Network)
		}
	}
	return nil
}

func (s *Store) allLeases() ([]network.Lease, error) {
	return s.readLeases(func(workload.ID, string) bool { return true })
}

func (s *Store) membersOf(name string) ([]network.Lease, error) {
	return s.readLeases(func(_ workload.ID, n string) bool { return n == name })
}

// Leases returns what workloads have in the network called name, by address.
func (s *Store) Leases(name string) ([]network.Lease, error) {
	out, err := s.membersOf(name)
	slices.SortFunc(out, func(a, b network.Lease) int {
		return slices.CompareFunc(a.NIC.Addresses, b.NIC.Addresses, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	})
	return out, err
}

// LeasesOf returns what a workload has, in the order of its interfaces.
func (s *Store) LeasesOf(id workload.ID) ([]network.Lease, error) {
	out, err := s.readLeases(func(of workload.ID, _ string) bool { return of == id })
	slices.SortFunc(out, func(a, b network.Lease) int {
		return cmp.Or(cmp.Compare(len(a.NIC.Name), len(b.NIC.Name)), strings.Compare(a.NIC.Name, b.NIC.Name))
	})
	return out, err
}

// taken returns the addresses of a network that have an owner.
func (s *Store) taken(name string) (map[netip.Addr]bool, error) {
	entries, err := os.ReadDir(s.leases(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	taken := make(map[netip.Addr]bool, len(entries))
	for _, e := range entries {
		if a, err := netip.ParseAddr(e.Name()); err == nil {
			taken[a] = true
		}
	}
	return taken, nil
}

// pick returns an address of the subnet: the wanted one or an error, else the last
// if it is free, else the first free one after the cursor, so that an address
// rests as long as possible before it has another owner.
func pick(sub network.Subnet, wanted, last, cursor netip.Addr, taken map[netip.Addr]bool) (netip.Addr, error) {
	ns := sub.Nameserver()
	usable := func(a netip.Addr) bool { return sub.Host(a) && a != sub.Gateway && a != ns && !taken[a] }
	if wanted.IsValid() {
		switch {
		case !sub.Host(wanted):
			return wanted, network.Invalidf("address %s is not that of a host in %s", wanted, sub.Prefix)
		case wanted == sub.Gateway:
			return wanted, fmt.Errorf("%w: %s is the gateway's", network.ErrAddressTaken, wanted)
		case wanted == ns:
			return wanted, fmt.Errorf("%w: %s is the name server's", network.ErrAddressTaken, wanted)
		case taken[wanted]:
			return wanted, fmt.Errorf("%w: %s", network.ErrAddressTaken, wanted)
		}
		return wanted, nil
	}
	if last.IsValid() && usable(last) {
		return last, nil
	}
	within := sub.Range
	if !within.IsValid() {
		within = sub.Prefix
	}
	first, end := within.Addr(), network.Last(within)
	a := first
	if within.Contains(cursor) && cursor != end {
		a = cursor.Next()
	}
	// Among so many addresses there is one that is free, or it is all of them.
	for range len(taken) + 5 {
		if usable(a) {
			return a, nil
		}
		if a == end {
			a = first
		} else {
			a = a.Next()
		}
	}
	return netip.Addr{}, fmt.Errorf("%w in %s", network.ErrExhausted, within)
}

// cursors are the addresses of a network that were handed out last in turn.
type cursors struct {
	V4 turn `json:"v4,omitzero"`
	V6 turn `json:"v6,omitzero"`
}

// turn is one family's.
type turn struct {
	Last netip.Addr `json:"last,omitzero"`
	// Again tells that every address has had its turn since cleanseSubnets.
	Again bool `json:"again,omitempty"`
}

func (c *cursors) of(p netip.Prefix) *turn {
	if p.Addr().Is4() {
		return &c.V4
	}
	return &c.V6
}
