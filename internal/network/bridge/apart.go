package bridge

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The process of a user network (package user) makes a workload's connections in
// the host's network namespace, and so would reach every workload in every network
// as the host does, internal ones too. It is known by its user ID, which nobody
// else in that namespace has: what it sends into a network is dropped, but to published ports. That
// is so for networks of the same state root only. Another root does not know the
// user, and this one has no tables where it has no network.

// apart has a file for each workload in the user network, with its process's user
// ID.
func (s *Store) apart() string { return filepath.Join(s.running(), "apart") }

// KeepApart keeps a user ID, that of the process of a workload's user network, out
// of all networks until the workload is released.
func (s *Store) KeepApart(ctx context.Context, id workload.ID, user uint32) error {
	unlock, err := s.lock(ctx)
	if err == nil {
		defer unlock()
		err = s.keepApart(ctx, id, user)
	}
	if err != nil {
		return fmt.Errorf("keep workload %s out of networks: %w", id.Short(), err)
	}
	return nil
}

func (s *Store) keepApart(ctx context.Context, id workload.ID, user uint32) error {
	if _, err := workload.ParseID(string(id)); err != nil {
		return err
	}
	if user == 0 {
		return network.Invalidf("root cannot be kept out of networks")
	}
	all, err := s.allApart()
	if err == nil && all[id] != 0 && all[id] != user {
		err = s.reunite(ctx, id)
	}
	if err != nil {
		return err
	}
	b, err := json.Marshal(user)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.apart(), 0o700); err != nil {
		return err
	}
	if err := replace(filepath.Join(s.apart(), string(id)), b); err != nil {
		return err
	}
	did("apart: recorded")
	// Without tables there is no network. Who makes the first reads the record.
	err = s.t.add([]element{apartElement(user)})
	switch {
	case errors.Is(err, workload.ErrUnsupported):
		err = nil
	case errors.Is(err, os.ErrNotExist):
		var up bool
		if up, err = s.anyBridge(); up && err == nil {
			err = s.rebuild()
		}
	}
	return err
}

// endApart ends the process of a workload that is kept apart.
func (s *Store) endApart(ctx context.Context, id workload.ID) error {
	if s.o.EndApart == nil {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(s.apart(), string(id))); err != nil {
		return ignoreMissing(err)
	}
	return s.o.EndApart(ctx, id)
}

// reunite undoes keepApart; the lock is held. The process is ended first: a machine
// whose agent says that the workload has ended may go on sending. Where that was done
// before the lock was taken, here it is made sure of.
func (s *Store) reunite(ctx context.Context, id workload.ID) error {
	file := filepath.Join(s.apart(), string(id))
	var user uint32
	err := readJSON(file, &user)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := s.endApart(ctx, id); err != nil {
		return err
	}
	if err == nil {
		err = s.t.remove([]element{apartElement(user)})
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, workload.ErrUnsupported) {
			err = nil
		}
	}
	return errors.Join(err, ignoreMissing(os.Remove(file)))
}

// allApart returns the user ID of each workload in the user network.
func (s *Store) allApart() (map[workload.ID]uint32, error) {
	entries, err := os.ReadDir(s.apart())
	if err != nil {
		return nil, ignoreMissing(err)
	}
	all := map[workload.ID]uint32{}
	for _, e := range entries {
		id, err := workload.ParseID(e.Name())
		if err != nil {
			continue // a file that was not finished
		}
		var user uint32
		if err := readJSON(filepath.Join(s.apart(), e.Name()), &user); errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("read who is kept apart: %w", err)
		}
		all[id] = user
	}
	return all, nil
}

func apartElement(user uint32) element {
	return element{setApart, binary.NativeEndian.AppendUint32(nil, user), nil}
}

// anyBridge reports whether the bridge of any network exists.
func (s *Store) anyBridge() (bool, error) {
	all, err := s.all()
	if err != nil {
		return false, err
	}
	for _, n := range all {
		if _, err := netlink.LinkByName(n.Bridge); err == nil {
			return true, nil
		}
	}
	return false, nil
}
