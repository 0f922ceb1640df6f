package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/cgroups"
)

// killTime bounds Kill, Destroy and Freeze when their context has no deadline.
// Tests set it.
var killTime = 10 * time.Second

// Kill ends every process of the cgroup and below with SIGKILL and returns
// when none is left. A frozen cgroup is killed too, and thawed on v1. Without
// a deadline in ctx it gives up after ten seconds: a process in an
// uninterruptible wait cannot be killed.
func (m *Manager) Kill(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if m.v2 != "" {
		// One write, atomic against fork (Linux 5.14).
		if err := ignoreGone(writeFile(m.v2, "cgroup.kill", "1")); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", m.path, noAccess(err))
		}
	}
	if err := m.thawV1(); err != nil {
		return fmt.Errorf("kill cgroup %s: %w", m.path, noAccess(err))
	}
	if m.v2 != "" {
		if err := waitEvent(ctx, m.v2, "populated 0"); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", m.path, err)
		}
	}
	if err := m.killStragglers(ctx); err != nil {
		return fmt.Errorf("kill cgroup %s: %w", m.path, err)
	}
	return nil
}

// thawV1 thaws a v1 freezer: what is frozen there does not die of a signal.
func (m *Manager) thawV1() error {
	dir := m.dirOn("freezer")
	if dir == "" {
		return nil
	}
	state, err := readFile(dir, "freezer.state")
	if err != nil || strings.TrimSpace(state) == "THAWED" {
		return ignoreGone(err)
	}
	return ignoreGone(m.freezeV1(cgroups.Thawed))
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, killTime)
}

// killStragglers ends what is in the v1 hierarchies only: everything on pure
// v1, on a hybrid machine a child that was interrupted between joining the
// two. Each round kills all that it sees; a fork bomb runs out of new
// processes because its cgroup is frozen meanwhile.
func (m *Manager) killStragglers(ctx context.Context) error {
	for len(m.v1) > 0 {
		pids, err := m.v1Pids()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		frozen := m.dirOn("freezer") != "" && m.freezeV1(cgroups.Frozen) == nil
		err = m.signalMembers(pids, syscall.SIGKILL)
		if frozen {
			err = errors.Join(err, m.freezeV1(cgroups.Thawed))
		}
		if err != nil {
			return err
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("%d processes are left: %w", len(pids), err)
		}
	}
	return nil
}

func (m *Manager) v1Pids() ([]int, error) {
	only := *m
	only.v2 = ""
	return only.Pids(true)
}

// Signal sends sig to every process of the cgroup and below. Processes that
// appear meanwhile may be missed; Kill misses none.
func (m *Manager) Signal(sig syscall.Signal) error {
	pids, err := m.Pids(true)
	if err != nil {
		return err
	}
	return m.signalMembers(pids, sig)
}

// signalMembers signals processes through pidfds. A number may have been given
// to another process since it was read: so the cgroup is asked again once the
// pidfd is held, and who is not listed then is left alone.
func (m *Manager) signalMembers(pids []int, sig syscall.Signal) error {
	handles := make(map[int]*os.Process, len(pids))
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			handles[pid] = p
		}
	}
	defer func() {
		for _, p := range handles {
			_ = p.Release()
		}
	}()
	members, err := m.Pids(true)
	if err != nil {
		return err
	}
	for _, pid := range members {
		p, ok := handles[pid]
		if !ok {
			continue
		}
		if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}
