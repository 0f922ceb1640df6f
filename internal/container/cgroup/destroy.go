package cgroup

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// Destroy removes the cgroup from every hierarchy, with child cgroups that
// the workload may have made. It kills nothing: while processes are left it
// tries again until ctx is done, ten seconds if ctx has no deadline, and then
// fails with ErrPopulated. What is gone already is no error.
//
// The parents stay; RemoveEmptyParents removes those.
func (m *Manager) Destroy(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for delay := time.Millisecond; ; delay = min(2*delay, 100*time.Millisecond) {
		err := m.remove()
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOTEMPTY) {
			return fmt.Errorf("remove cgroup %s: %w", m.path, noAccess(err))
		}
		// The kernel lets go of a dead process a moment after it is reaped.
		if sleep(ctx, delay) != nil {
			return m.stillThere(err)
		}
	}
}

func (m *Manager) stillThere(err error) error {
	pids, pidsErr := m.Pids(true)
	if pidsErr == nil && len(pids) > 0 {
		return fmt.Errorf("remove cgroup %s: %w: %d of them, the first is %d", m.path, ErrPopulated, len(pids), pids[0])
	}
	return fmt.Errorf("remove cgroup %s: %w", m.path, err)
}

// remove tries every hierarchy once and returns the first error.
func (m *Manager) remove() error {
	var first error
	for _, dir := range m.dirs() {
		if err := removeTree(dir); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func removeTree(dir string) error {
	if err := rmdir(dir); err == nil {
		return nil
	}
	return walk(dir, rmdirAt)
}

func rmdir(dir string) error { return rmdirAt(at.CWD, dir) }

func rmdirAt(parent int, dir string) error {
	for {
		err := at.RemoveDir(parent, dir)
		switch {
		case errors.Is(err, syscall.ENOENT):
			return nil
		case errors.Is(err, syscall.EINTR):
			continue
		}
		return err
	}
}

// RemoveEmptyParents removes parents of the cgroup that no other cgroup and
// no process uses any more, nearest first, up to and including top, which
// must be one of them. It removes nothing above top and is silent about
// parents in use.
func (m *Manager) RemoveEmptyParents(top string) {
	if len(top) == 0 || top == "/" || len(m.path) <= len(top) || m.path[:len(top)+1] != top+"/" {
		return
	}
	var mounts []string
	for _, d := range m.v1 {
		mounts = append(mounts, d.Mount)
	}
	if m.v2 != "" {
		mounts = append(mounts, m.lay.V2)
	}
	for _, mount := range mounts {
		for i := len(m.path) - 1; i >= len(top); i-- {
			if m.path[i] == '/' && rmdir(mount+m.path[:i]) != nil {
				break
			}
		}
	}
}
