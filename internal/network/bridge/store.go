package bridge

import (
	"context"
	"errors"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Options say what a Store may use beside its directories.
type Options struct {
	// DNSProgram is the path of bulkhead-dns; "" starts no name servers, and none
	// are told to workloads.
	DNSProgram string
}

// Store is all networks of one state root. It may be used by any number of
// processes at once.
type Store struct {
	root, run string
	o         Options
}

// Open returns the networks below the state directory root and the run-time
// directory run, both absolute. Nothing is made before it is needed.
func Open(root, run string, o Options) (*Store, error) {
	return nil, errors.ErrUnsupported
}

// Create makes a network as asked and returns it with all that was left open
// filled in: ID, bridge, subnets. The error wraps network.ErrExists, ErrOverlap,
// ErrInvalid or ErrExhausted.
func (s *Store) Create(ctx context.Context, n network.Network) (*network.Network, error) {
	return nil, errors.ErrUnsupported
}

// Get returns the network that ref means: a name, an ID or the beginning of one,
// tried in this order. The default network is made by that if it has to be.
func (s *Store) Get(ctx context.Context, ref string) (*network.Network, error) {
	return nil, errors.ErrUnsupported
}

// List returns all networks by name. The default network is among them.
func (s *Store) List(ctx context.Context) ([]network.Network, error) {
	return nil, errors.ErrUnsupported
}

// Remove removes a network that no workload is attached to; otherwise the error
// wraps network.ErrInUse.
func (s *Store) Remove(ctx context.Context, ref string) error { return errors.ErrUnsupported }

// Prune removes the networks that no workload is attached to and keep, which may
// be nil, does not return true for, and returns their names. The default network
// stays.
func (s *Store) Prune(ctx context.Context, keep func(network.Network) bool) ([]string, error) {
	return nil, errors.ErrUnsupported
}

// Attached is what Attach made for one workload.
type Attached struct {
	network.Prepared
	// Taps are the tap devices, in the order of NICs, where they were asked for.
	Taps []*os.File
	// Reserved are bound sockets that keep the host's ports from others. Whoever
	// owns the workload keeps them as long as it runs.
	Reserved []*os.File
}

// Attach gives a workload its addresses, ports and rules, and taps if they are
// asked for. What the workload had before, it loses. On error nothing is left. The
// error wraps network.ErrNotFound, ErrExhausted, ErrAddressTaken, ErrPortTaken or
// ErrInvalid, or workload.ErrUnsupported.
func (s *Store) Attach(ctx context.Context, r network.Request) (*Attached, error) {
	return nil, errors.ErrUnsupported
}

// Enter makes the interfaces in the workload's network namespace and configures
// them: names, addresses, routes, and loopback. After it everything works.
func (a *Attached) Enter(ctx context.Context, netns *os.File) error { return errors.ErrUnsupported }

// Close closes the descriptors of Taps and Reserved. The workload stays attached.
func (a *Attached) Close() error { return nil }

// Release takes back all that a workload has: interfaces, rules, addresses. It
// may be called again, and after any crash.
func (s *Store) Release(ctx context.Context, id workload.ID) error { return errors.ErrUnsupported }

// Rename puts the name to in the place of from among the names of a workload, in
// every network that it is attached to. A workload that is not attached is no
// error.
func (s *Store) Rename(ctx context.Context, id workload.ID, from, to string) error {
	return errors.ErrUnsupported
}

// Sweep releases every workload that alive does not return true for.
func (s *Store) Sweep(ctx context.Context, alive func(workload.ID) bool) error {
	return errors.ErrUnsupported
}

// Leases returns what workloads have in the network called name, by address.
func (s *Store) Leases(name string) ([]network.Lease, error) { return nil, errors.ErrUnsupported }

// LeasesOf returns what a workload has, in the order of its interfaces.
func (s *Store) LeasesOf(id workload.ID) ([]network.Lease, error) {
	return nil, errors.ErrUnsupported
}

// Repair makes bridges, kernel settings, all rules and the name servers anew from
// what is recorded, such as after `nft flush ruleset`.
func (s *Store) Repair(ctx context.Context) error { return errors.ErrUnsupported }

// Obstacle is a part of somebody else's firewall that concerns our packets.
type Obstacle struct {
	// Where names it: "table ip filter, chain FORWARD".
	Where string `json:"where"`
	// What it does, and Fix what to do about it: a sentence each.
	What string `json:"what"`
	Fix  string `json:"fix"`
}

// Obstacles looks for rules of others that stop packets of our networks: an accept
// in our table does not override a drop in another.
func (s *Store) Obstacles(ctx context.Context) ([]Obstacle, error) {
	return nil, errors.ErrUnsupported
}
