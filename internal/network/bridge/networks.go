package bridge

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// defaultMTU is that of a network that does not say, in bytes.
const defaultMTU = 1500

// Create makes a network as asked and returns it with all that was left open
// filled in: ID, bridge, subnets. A Subnet's Prefix may be network.Any4 or Any6;
// without any subnet the network gets one of IPv4. The error wraps
// network.ErrExists, ErrOverlap, ErrInvalid or ErrExhausted.
func (s *Store) Create(ctx context.Context, n network.Network) (*network.Network, error) {
	if err := n.Check(); err != nil {
		return nil, fmt.Errorf("create network %q: %w", n.Name, err)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if strings.EqualFold(n.Name, workload.DefaultNetwork) {
		return nil, fmt.Errorf("create network %q: %w: %q exists without being made", n.Name, network.ErrExists, workload.DefaultNetwork)
	}
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	// Each is a domain with the names of its workloads, and case does not tell domains
	// apart (RFC 4343).
	for name := range all {
		if name != n.Name && strings.EqualFold(name, n.Name) {
			return nil, fmt.Errorf("create network %q: %w: %q, which is the same domain", n.Name, network.ErrExists, name)
		}
	}
	made, err := s.create(n)
	if err != nil {
		return nil, fmt.Errorf("create network %q: %w", n.Name, err)
	}
	return made, nil
}

// create makes a network that was checked; the lock is held.
func (s *Store) create(n network.Network) (*network.Network, error) {
	if _, err := os.Lstat(s.record(n.Name)); err == nil {
		return nil, network.ErrExists
	}
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	var id [32]byte
	rand.Read(id[:])
	n.ID = hex.EncodeToString(id[:])
	n.Created, n.Driver, n.Bridge = time.Now().UTC(), "bridge", bridgeName(n.ID)
	if len(n.Subnets) == 0 {
		n.Subnets = []network.Subnet{{Prefix: network.Any4}}
	}
	n.Subnets = slices.Clone(n.Subnets)
	if err := choose(&n, all); err != nil {
		return nil, err
	}
	if err := s.write(n); err != nil {
		return nil, err
	}
	did("network recorded")
	return &n, nil
}

// bridgeName fills the 15 bytes that an interface's name may have. The ID is
// random, so that networks of several state roots get different names.
func bridgeName(id string) string { return "bh-" + id[:12] }

func (s *Store) write(n network.Network) error {
	b, err := json.MarshalIndent(n, "", "\t")
	if err == nil {
		err = replaceDurably(s.record(n.Name), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("record the network: %w", err)
	}
	return nil
}

// maxRecord bounds what is read of a record, in bytes.
const maxRecord = 1 << 20

func readJSON(path string, v any) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.Size() > maxRecord {
		return &os.PathError{Op: "read", Path: path, Err: errors.New("is too large for a record")}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// read returns the network of a name, or an error that wraps ErrNotFound or
// ErrDamaged.
func (s *Store) read(name string) (*network.Network, error) {
	if network.CheckName(name) != nil {
		return nil, fmt.Errorf("%w: %q", network.ErrNotFound, name)
	}
	n := &network.Network{}
	err := readJSON(s.record(name), n)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q", network.ErrNotFound, name)
	}
	if err == nil {
		err = intact(n, name)
	}
	var cannot syscall.Errno // be read: who knows what is in it
	if err != nil && !errors.As(err, &cannot) {
		err = fmt.Errorf("%w: %w", network.ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of network %q: %w", name, err)
	}
	return n, nil
}

// intact makes sure that a record that somebody may have edited can be used.
func intact(n *network.Network, name string) error {
	if n.Name != name || len(n.ID) != 64 || n.Bridge != bridgeName(n.ID) {
		return errors.New("name, ID and bridge do not belong together")
	}
	if _, err := hex.DecodeString(n.ID); err != nil {
		return errors.New("it has no ID")
	}
	if len(n.Subnets) == 0 {
		return errors.New("it has no subnet")
	}
	for _, sub := range n.Subnets {
		if sub.Prefix == network.Any4 || sub.Prefix == network.Any6 || !sub.Gateway.IsValid() {
			return errors.New("a subnet is not complete")
		}
	}
	return n.Check()
}

// all returns every network that is recorded, by name. One whose record is damaged,
// as a power cut may leave it, is in nobody's way: it is left out, with a warning.
// While workloads are in it that is an error, as they would be left out of the rules.
func (s *Store) all() (map[string]network.Network, error) {
	entries, err := os.ReadDir(s.networks())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	all := map[string]network.Network{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || network.CheckName(name) != nil {
			continue
		}
		n, err := s.read(name)
		if errors.Is(err, network.ErrNotFound) {
			continue // removed meanwhile
		}
		if errors.Is(err, network.ErrDamaged) && s.deserted(name) == nil {
			s.leftOut(name, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		all[name] = *n
	}
	return all, nil
}

// leftOut warns of a network, once.
func (s *Store) leftOut(name string, why error) {
	if _, told := s.warned.LoadOrStore(name, true); !told && s.o.Warn != nil {
		s.o.Warn(fmt.Sprintf("network %s is left out: %v", name, why))
	}
}

// deserted returns ErrInUse if a workload is in a network.
func (s *Store) deserted(name string) error {
	in, err := s.membersOf(name)
	if err == nil && len(in) > 0 {
		err = fmt.Errorf("%w: %s", network.ErrInUse, who(in))
	}
	return err
}

// ensureDefault makes the default network if there is none; the lock is held. Nobody
// has asked for anything in it, so one whose record is damaged is made anew.
func (s *Store) ensureDefault(ctx context.Context) (*network.Network, error) {
	n, err := s.read(workload.DefaultNetwork)
	if errors.Is(err, network.ErrDamaged) && s.removeDamaged(ctx, workload.DefaultNetwork) == nil {
		err = network.ErrNotFound
	}
	if !errors.Is(err, network.ErrNotFound) {
		return n, err
	}
	n = &network.Network{Name: workload.DefaultNetwork, Subnets: []network.Subnet{{Prefix: network.Any4}}}
	if haveIPv6() {
		n.Subnets = append(n.Subnets, network.Subnet{Prefix: network.Any6})
	}
	n, err = s.create(*n)
	if err != nil {
		return nil, fmt.Errorf("create network %q: %w", workload.DefaultNetwork, err)
	}
	return n, nil
}

// Get returns the network that ref means: a name, an ID or the beginning of one,
// tried in this order. The default network is made by that if it has to be.
func (s *Store) Get(ctx context.Context, ref string) (*network.Network, error) {
	n, err := s.read(ref)
	switch {
	case err == nil:
		return n, nil
	case ref == workload.DefaultNetwork:
		unlock, err := s.lock(ctx)
		if err != nil {
			return nil, err
		}
		defer unlock()
		return s.ensureDefault(ctx)
	case !errors.Is(err, network.ErrNotFound):
		return nil, err
	}
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	var found []network.Network
	for _, n := range all {
		if ref != "" && strings.HasPrefix(n.ID, ref) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %q", network.ErrNotFound, ref)
	case 1:
		return &found[0], nil
	}
	return nil, fmt.Errorf("%w: %q", network.ErrAmbiguous, ref)
}

// List returns all networks by name. The default network is among them.
func (s *Store) List(ctx context.Context) ([]network.Network, error) {
	if _, err := s.Get(ctx, workload.DefaultNetwork); err != nil {
		return nil, err
	}
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(all), func(a, b network.Network) int { return cmp.Compare(a.Name, b.Name) }), nil
}

// Remove removes a network that no workload is attached to, and returns what it was;
// otherwise the error wraps network.ErrInUse. The default network stays:
// network.ErrDefault. One whose record is damaged is found by its name only.
func (s *Store) Remove(ctx context.Context, ref string) (*network.Network, error) {
	n, err := s.Get(ctx, ref)
	if errors.Is(err, network.ErrDamaged) {
		n, err = &network.Network{Name: ref}, nil
	}
	if err == nil && n.Name == workload.DefaultNetwork {
		err = network.ErrDefault
	}
	if err != nil {
		return nil, fmt.Errorf("remove network %q: %w", ref, err)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	now, err := s.read(n.Name)
	if err == nil {
		n, err = now, s.remove(ctx, now)
	} else if errors.Is(err, network.ErrDamaged) {
		err = s.removeDamaged(ctx, n.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("remove network %q: %w", n.Name, err)
	}
	return n, nil
}

// remove removes a network that nobody is in; the lock is held. The record goes
// last: nobody would know whose a bridge without one is.
func (s *Store) remove(ctx context.Context, n *network.Network) error {
	if err := s.deserted(n.Name); err != nil {
		return err
	}
	if err := s.dismantle(ctx, n); err != nil {
		return err
	}
	return os.Remove(s.record(n.Name))
}

// removeDamaged removes what can be found of a network whose record is damaged; the
// lock is held. A bridge may be left, with nothing on it, until the next boot.
func (s *Store) removeDamaged(ctx context.Context, name string) error {
	if err := s.deserted(name); err != nil {
		return err
	}
	var err error
	if _, serr := os.Lstat(s.server(name)); serr == nil {
		gone, kerr := dns.Kill(s.server(name))
		err = errors.Join(ignoreMissing(kerr), gone(ctx))
	}
	err = errors.Join(err, os.RemoveAll(filepath.Dir(s.leases(name))), s.freeIDs(name))
	if err != nil {
		return err
	}
	return os.Remove(s.record(name))
}

// who names the first few workloads.
func who(in []network.Lease) string {
	var names []string
	for _, l := range in {
		if len(names) == 3 {
			names = append(names, fmt.Sprintf("and %d more", len(in)-3))
			break
		}
		name := l.Workload.Short()
		if len(l.Names) > 0 {
			name = l.Names[0]
		}
		names = append(names, name)
	}
	return "by " + strings.Join(names, ", ")
}

// dismantle takes away all that a network without members has on the host, and
// may be called again.
func (s *Store) dismantle(ctx context.Context, n *network.Network) error {
	err := s.stopServer(ctx, n)
	rerr := ignoreMissing(s.t.remove(networkElements(n)))
	if errors.Is(rerr, workload.ErrUnsupported) {
		rerr = nil // there never was a rule
	}
	err = errors.Join(err, rerr)
	did("network: rules removed")
	// What is known of addresses goes after the bridge: whoever makes the next one
	// cleanses them all.
	if lerr := deleteLink(n.Bridge); lerr != nil {
		err = errors.Join(err, lerr)
	} else {
		err = errors.Join(err, os.RemoveAll(filepath.Dir(s.leases(n.Name))))
	}
	did("network: bridge removed")
	return errors.Join(err, s.freeIDs(n.Name), s.tidy(ctx))
}

// Prune removes the networks that no workload is attached to and keep, which may
// be nil, does not return true for, and returns their names. The default network
// stays.
func (s *Store) Prune(ctx context.Context, keep func(network.Network) bool) ([]string, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n := all[name]
		if name == workload.DefaultNetwork || keep != nil && keep(n) {
			continue
		}
		if err := s.remove(ctx, &n); errors.Is(err, network.ErrInUse) {
			continue
		} else if err != nil {
			return removed, fmt.Errorf("remove network %q: %w", name, err)
		}
		removed = append(removed, name)
	}
	return removed, nil
}
