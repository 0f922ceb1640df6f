package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/warm"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// heal cleans up after processes that died in the middle of something. What it
// cannot clean up is a warning, and tried again by the next command: one broken
// workload must not keep all others from being used.
func (e *Engine) heal(ctx context.Context, rebooted bool) error {
	if rebooted {
		if err := e.healBoot(); err != nil {
			return err
		}
	}
	trash, err := e.layout.Trash()
	if err != nil {
		return err
	}
	for _, id := range trash {
		e.warn(e.forget(id))
	}
	active, err := e.layout.Active()
	if err != nil {
		return err
	}
	for _, id := range active {
		k, err := e.layout.TryLock(id)
		switch {
		case err == nil:
			e.warn(e.recover(ctx, id))
			k.Unlock()
		case errors.Is(err, workload.ErrNotFound):
			e.warn(e.layout.Unborn(id))
		case !errors.Is(err, state.ErrLocked):
			e.warn(err)
		}
	}
	e.warn(e.sweepWarm(ctx))
	e.warn(e.sweepNetworks(ctx))
	return nil
}

// healBoot cleans up after a reboot: no process, mount, cgroup, interface or rule
// of before is left, but numbers of processes in a run root that was not cleared
// would now mean others, and addresses have owners that are gone, so its contents go
// before anybody reads them. What happened stays to be read, see package events.
func (e *Engine) healBoot() error {
	return e.layout.Exclusive(func() error {
		// Another command may have been first.
		if rebooted, err := e.layout.Make(); err != nil || !rebooted {
			return err
		}
		active, err := e.layout.Active()
		if err != nil {
			return err
		}
		for _, id := range active {
			if err := os.RemoveAll(e.layout.RunDir(id)); err != nil {
				return err
			}
		}
		for _, dir := range []string{warm.Dir(e.layout.Run), e.layout.RunNetworks()} {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		all, err := e.layout.All()
		if err != nil {
			return err
		}
		for _, id := range all {
			// A workload that was being created then has no state; making its
			// run-time directory lets heal remove it.
			st, err := e.layout.ReadState(id)
			if err == nil && !st.Live() {
				continue
			}
			if err := os.Mkdir(e.layout.RunDir(id), 0o700); err != nil {
				return err
			}
		}
		return e.layout.SetBooted()
	})
}

func (e *Engine) warn(err error) {
	if err != nil {
		e.cfg.Warn(err.Error())
	}
}

// forget finishes the removal of a workload in the trash.
func (e *Engine) forget(id workload.ID) error {
	err := e.freeNames(id)
	err = errors.Join(err, e.layout.IDs().ReleaseOwner(string(id)))
	return errors.Join(err, e.layout.Empty(id))
}

// freeNames removes every name that points to a workload.
func (e *Engine) freeNames(id workload.ID) error {
	return e.layout.Exclusive(func() error {
		names, err := e.namesOf(id)
		for _, name := range names {
			if err := os.Remove(e.layout.Name(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return err
	})
}

// namesOf returns every name that points to a workload. It reads all names.
func (e *Engine) namesOf(id workload.ID) (its []string, err error) {
	names, err := os.ReadDir(filepath.Join(e.layout.Root, "names"))
	for _, n := range names {
		if to, err := os.Readlink(e.layout.Name(n.Name())); err == nil && to == string(id) {
			its = append(its, n.Name())
		}
	}
	return its, err
}

// recover brings a workload whose lock the caller holds, and which may have been
// left half way, to a state without supervisor, or removes it. Afterwards the
// workload may not exist any more.
func (e *Engine) recover(ctx context.Context, id workload.ID) error {
	st, err := e.layout.ReadState(id)
	if err != nil {
		st, err = e.restore(id, err)
	}
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		// Its creation was not finished, so nobody was told of it; but its
		// supervisor may have gone as far as the boundary.
		if err := e.deleteBoundary(ctx, id); err != nil {
			return fmt.Errorf("clean up after workload %s, which was never started: %w", id.Short(), err)
		}
		return e.rollback(id)
	}
	if _, err := os.Lstat(e.layout.RunDir(id)); errors.Is(err, os.ErrNotExist) && !st.Live() {
		return nil
	}
	spec, err := e.layout.ReadSpec(id)
	if err != nil {
		return err
	}
	said := e.lastWords(id)
	if err := e.deleteBoundary(ctx, id); err != nil {
		return fmt.Errorf("clean up after workload %s, whose supervisor is gone: %w", spec.Name, err)
	}
	if spec.AutoRemove && (st.Live() || st.Status == workload.Created && !st.Held) {
		if st.Exit == nil && st.Live() {
			e.cfg.Warn(fmt.Sprintf("workload %s is removed: its supervisor was lost%s", spec.Name, said))
		}
		e.warn(e.layout.DropVolumes(id))
		if st.Live() && st.Exit == nil {
			e.layout.Happened(spec, "die", "exitCode", "255", "error", workload.ErrSupervisorLost.Error())
		}
		if err := e.layout.Remove(id, spec.Name, st.IDBase); err != nil {
			return err
		}
		e.layout.Happened(spec, "destroy")
		return nil
	}
	if st.Live() {
		lost := st.Exit == nil
		if lost {
			st.Exit = &workload.Exit{Code: 255, At: time.Now(), Error: workload.ErrSupervisorLost.Error() + said}
		} else if st.Status == workload.Restarting {
			st.Exit.Error = workload.ErrSupervisorLost.Error() + " between two runs" + said
		}
		st.PID, st.Supervisor, st.Finished = 0, 0, st.Exit.At
		if err := st.To(workload.Exited); err != nil {
			return err
		}
		if err := e.layout.WriteState(id, st, true); err != nil {
			return err
		}
		if lost {
			e.layout.Happened(spec, "die", "exitCode", "255", "error", st.Exit.Error)
		}
	}
	if err := os.RemoveAll(e.layout.RunDir(id)); err != nil || !st.Held {
		return err
	}
	st.Held = false
	return e.layout.WriteState(id, st, true)
}

// restore brings the state before back where a power cut has spoilt the last, and
// returns unread, the error of reading that, where there is none.
func (e *Engine) restore(id workload.ID, unread error) (*state.State, error) {
	st, err := e.layout.RestoreState(id, unread)
	if errors.Is(err, os.ErrNotExist) {
		return nil, unread
	}
	if err == nil {
		e.cfg.Warn(fmt.Sprintf("the record of what workload %s does was spoilt, as by a power cut: the one before counts", id.Short()))
	}
	return st, err
}

// rollback removes a workload whose creation was not finished; the caller holds
// its lock.
func (e *Engine) rollback(id workload.ID) error {
	e.warn(e.layout.DropVolumes(id))
	return e.erase(id)
}

// erase removes a workload of which little may be known; the caller holds its
// lock.
func (e *Engine) erase(id workload.ID) error {
	// What was done first is undone last: see reserve.
	err := e.freeNames(id)
	err = errors.Join(err, e.layout.IDs().ReleaseOwner(string(id)))
	return errors.Join(err, e.layout.Remove(id, "", 0))
}

// healing bounds how long a boundary may take to remove what a dead supervisor
// left. A process in an uninterruptible system call, or one that nobody reaps because
// the host's first process does not, can hold it up for ever; then the next
// command tries again.
const healing = 10 * time.Second

// deleteBoundary lets the boundary remove what a dead supervisor left.
func (e *Engine) deleteBoundary(ctx context.Context, id workload.ID) error {
	dir := e.layout.RunDir(id)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil // a reboot did it
	}
	spec, err := e.layout.ReadSpec(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the supervisor is only told after the spec is written
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healing)
	defer cancel()
	if err := e.deleteInstance(ctx, spec, dir); err != nil {
		return err
	}
	// Last: an address is free when nothing of the workload can use it any more.
	return e.releaseNetworks(ctx, spec)
}

// deleteInstance ends all processes of a workload and removes what its boundary
// made.
func (e *Engine) deleteInstance(ctx context.Context, spec *workload.Spec, dir string) error {
	b, err := e.boundary(spec.Boundary)
	if err != nil {
		return err
	}
	inst, err := b.Open(ctx, spec.ID, dir)
	if errors.Is(err, workload.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return nil // Create was never called
	}
	if err != nil {
		return err
	}
	return inst.Delete(ctx)
}

// lastWords returns the beginning of what a supervisor that died wrote to its
// standard error.
func (e *Engine) lastWords(id workload.ID) string {
	f, err := os.Open(filepath.Join(e.layout.RunDir(id), "stderr"))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 4096))
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if line == "" {
		return ""
	}
	return ": " + line
}
