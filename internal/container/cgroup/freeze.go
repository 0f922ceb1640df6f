package cgroup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/cgroups"
)

// Freeze stops every process of the cgroup and below, and returns when all
// are stopped, or have ended. When ctx ends first, or on any error, the cgroup is thawed.
// Without a deadline in ctx it gives up after ten seconds: a process in a system
// call that only a fatal signal ends, such as one that waits for the answer to a
// seccomp notification (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19), is
// never stopped.
func (m *Manager) Freeze(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	err := m.freeze(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("freeze cgroup %s: %w", m.path, noAccess(err)), m.Thaw())
	}
	return err
}

func (m *Manager) freeze(ctx context.Context) error {
	if m.v2 != "" {
		if err := writeFile(m.v2, "cgroup.freeze", "1"); err != nil {
			return err
		}
		err := waitEvent(ctx, m.v2, "frozen 1", "populated 0") // the latter alone where the last ends meanwhile (Linux 6.18)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("a process does not stop, as in a system call that only a fatal signal ends: %w", err)
		}
		return err
	}
	return m.freezeV1(cgroups.Frozen)
}

// Thaw lets the processes run again.
func (m *Manager) Thaw() error {
	var err error
	if m.v2 != "" {
		err = writeFile(m.v2, "cgroup.freeze", "0")
	} else {
		err = m.freezeV1(cgroups.Thawed)
	}
	if err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", m.path, noAccess(err))
	}
	return nil
}

// freezeV1 leaves the v1 freezer to the library, which knows how often to try.
func (m *Manager) freezeV1(state cgroups.FreezerState) error {
	if m.dirOn("freezer") == "" {
		return &MissingError{"freezing", "freezer", "no hierarchy with it is mounted"}
	}
	lib, err := m.v1Library()
	if err != nil {
		return err
	}
	return lib.Freeze(state)
}

// Frozen reports whether the cgroup is frozen, or about to be, by itself or
// by an ancestor.
func (m *Manager) Frozen() (bool, error) {
	if m.v2 != "" {
		self, err := readFile(m.v2, "cgroup.freeze")
		if err != nil {
			return false, ignoreGone(err)
		}
		if strings.TrimSpace(self) == "1" {
			return true, nil
		}
		events, err := readFile(m.v2, "cgroup.events")
		if strings.Contains(events, "frozen 1") {
			return true, nil
		}
		if err != nil {
			return false, ignoreGone(err)
		}
	}
	dir := m.dirOn("freezer")
	if dir == "" {
		return false, nil
	}
	state, err := readFile(dir, "freezer.state")
	if err != nil {
		return false, ignoreGone(err)
	}
	return strings.TrimSpace(state) != "THAWED", nil
}
