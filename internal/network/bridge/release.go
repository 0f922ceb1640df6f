package bridge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Release takes back all that a workload has: interfaces, rules, addresses. It
// may be called again, and after any crash.
func (s *Store) Release(ctx context.Context, id workload.ID) error {
	if in, err := s.LeasesOf(id); err == nil && len(in) == 0 {
		if _, err := os.Lstat(filepath.Join(s.apart(), string(id))); errors.Is(err, os.ErrNotExist) {
			return nil // the usual second call
		}
	}
	unlock, err := s.lock(ctx)
	if err == nil {
		defer unlock()
		err = errors.Join(s.reunite(id), s.release(ctx, id))
	}
	if err != nil {
		return fmt.Errorf("take workload %s out of its networks: %w", id.Short(), err)
	}
	return nil
}

// release takes back what a workload has; the lock is held. The order is that of
// package bridge's journal: what names an address goes before the address.
func (s *Store) release(ctx context.Context, id workload.ID) error {
	leases, err := s.LeasesOf(id)
	if err != nil || len(leases) == 0 {
		return err
	}
	// Each of these waits for the kernel for ten milliseconds and more: they may do
	// so together.
	links, servers := make(chan error, 1), make(chan error, 1)
	go func() { links <- removeLinks(leases) }()
	go func() { servers <- s.lastLeft(ctx, leases) }()
	err = errors.Join(s.unrule(id, leases), <-links, <-servers)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range leases {
		errs = append(errs, s.give(l))
	}
	return errors.Join(errs...)
}

// unrule removes the rules of a workload's leases.
func (s *Store) unrule(id workload.ID, leases []network.Lease) error {
	var es []element
	for _, l := range leases {
		es = append(es, leaseElements(l)...)
	}
	err := s.t.remove(es)
	if errors.Is(err, os.ErrNotExist) {
		// Some are not there, and so none was removed: the rest, without these.
		err = s.rebuildBut(id)
	}
	if err == nil {
		did("rules removed")
	}
	return err
}

func removeLinks(leases []network.Lease) error {
	var errs []error
	for _, l := range leases {
		if l.NIC.Link != "" {
			errs = append(errs, deleteLink(l.NIC.Link))
			did("interface removed")
		}
	}
	return errors.Join(errs...)
}

// lastLeft ends the name servers of networks in which nobody is but the workload
// of these leases: nobody is left to ask them.
func (s *Store) lastLeft(ctx context.Context, leases []network.Lease) error {
	entries, err := os.ReadDir(s.members())
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range leases {
		if slices.ContainsFunc(entries, func(e os.DirEntry) bool {
			id, name, ok := memberName(e.Name())
			return ok && name == l.Network && id != l.Workload
		}) {
			continue
		}
		n, err := s.read(l.Network)
		if err == nil {
			err = s.stopServer(ctx, n)
		}
		if !errors.Is(err, network.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Sweep releases every workload that alive does not return true for.
func (s *Store) Sweep(ctx context.Context, alive func(workload.ID) bool) error {
	all, err := s.allLeases()
	if err != nil {
		return err
	}
	apart, err := s.allApart()
	if err != nil {
		return err
	}
	for id := range apart {
		all = append(all, network.Lease{Workload: id})
	}
	seen := map[workload.ID]bool{}
	var errs []error
	for _, l := range all {
		if seen[l.Workload] {
			continue
		}
		seen[l.Workload] = true
		if !alive(l.Workload) {
			errs = append(errs, s.Release(ctx, l.Workload))
		}
	}
	return errors.Join(errs...)
}

// Rename puts a name in the place of another among those of a workload: the name
// servers know it by the new one at once. A workload that is in no network is no
// error.
func (s *Store) Rename(ctx context.Context, id workload.ID, from, to string) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	leases, err := s.LeasesOf(id)
	if err != nil {
		return err
	}
	for _, l := range leases {
		if i := slices.Index(l.Names, from); i >= 0 {
			l.Names = slices.Delete(l.Names, i, i+1)
		}
		if !slices.Contains(l.Names, to) {
			l.Names = slices.Insert(l.Names, 0, to)
		}
		if err := s.retake(l); err != nil {
			return fmt.Errorf("rename workload %s in network %q: %w", id.Short(), l.Network, err)
		}
	}
	return nil
}
