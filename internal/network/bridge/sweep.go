package bridge

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Unswept reports whether Sweep has something to do. It reads nothing but the names
// of files, as every command asks. root and run are those of Open.
func Unswept(root, run string, alive func(workload.ID) bool) (bool, error) {
	s := &Store{root: root, run: run}
	for _, dir := range []string{s.members(), s.apart()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		for _, e := range entries {
			id, _, _ := strings.Cut(e.Name(), "-")
			if _, err := workload.ParseID(id); err == nil && !alive(workload.ID(id)) {
				return true, nil
			}
		}
	}
	idle, err := s.idle()
	return len(idle) > 0, err
}

// Sweep releases every workload that alive does not return true for, and ends the
// name servers that are left in networks without any, but for those that somebody is
// about to end, see Leave. Then it does what SweepRules does.
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
	return errors.Join(append(errs, s.sweepServers(ctx), s.SweepRules(ctx))...)
}

// sweepServers ends the name servers of networks that nobody is in.
func (s *Store) sweepServers(ctx context.Context) error {
	idle, err := s.idle()
	if err != nil || len(idle) == 0 {
		return err
	}
	unlock, err := s.tryLock()
	if unlock == nil {
		return err
	}
	defer unlock()
	if idle, err = s.idle(); err != nil {
		return err
	}
	var errs []error
	for _, name := range idle {
		n, err := s.read(name)
		if err == nil {
			err = s.stopServer(ctx, n)
		}
		if !errors.Is(err, network.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// idle returns the networks that have a name server, or what is kept of one, and no
// members.
func (s *Store) idle() (names []string, err error) {
	of, err := os.ReadDir(s.active())
	if err != nil {
		return nil, ignoreMissing(err)
	}
	for _, e := range of {
		if _, err := os.Lstat(s.server(e.Name())); err == nil {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	members, err := os.ReadDir(s.members())
	if err != nil {
		return nil, ignoreMissing(err)
	}
	return slices.DeleteFunc(names, func(of string) bool {
		return slices.ContainsFunc(members, func(e os.DirEntry) bool {
			_, name, ok := memberName(e.Name())
			return ok && name == of
		})
	}), nil
}
