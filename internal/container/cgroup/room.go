package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// RoomFor raises a limit on processes below n to n, for as long as somebody
// else's code than the workload's is all that runs in the cgroup, and returns
// what puts the limit back in force. The caller must not let the workload run
// before that has succeeded. Where the limit is n or more, or there is none,
// nothing is done.
//
// The kernel checks the limit when a process is made, not when the limit is
// lowered or a process joins (Documentation/admin-guide/cgroup-v2.rst, PID).
func (m *Manager) RoomFor(n uint64) (settle func() error, err error) {
	settle = func() error { return nil }
	dir := m.dirOn("pids")
	if dir == "" {
		dir = m.v2
	}
	if dir == "" {
		return settle, nil
	}
	limit, err := readNumber(dir, "pids.max")
	if errors.Is(err, os.ErrNotExist) || err == nil && limit >= n {
		return settle, nil
	}
	if err == nil {
		err = writeFile(dir, "pids.max", strconv.FormatUint(n, 10))
	}
	if err != nil {
		return nil, fmt.Errorf("pids limit of cgroup %s: %w", m.path, noAccess(err))
	}
	return func() error {
		if err := writeFile(dir, "pids.max", strconv.FormatUint(limit, 10)); err != nil {
			return fmt.Errorf("pids limit of cgroup %s: %w", m.path, noAccess(err))
		}
		return nil
	}, nil
}
