package probing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/scratch"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
)

// Label is that of the workloads of a probe; its value is the name of the probe's
// directory (package scratch).
const Label = "bulkhead.probe"

// TenantName is the name of the tenant of a probe whose directory has this name.
func TenantName(id string) string { return "probe-" + id }

const (
	canaryPrefix = "bulkhead-probe-"
	shmMode      = 0o600
)

// left is what outlives this process of its canaries: those that everybody on the
// host can see, so that neither is known to be ours by its place or name alone.
type left struct {
	Dirs []string `json:"dirs"`
	Key  int      `json:"key"` // of the segment of shared memory
	PID  int      `json:"pid"` // of who made it
}

// recordFile is where it is written down.
func recordFile(dir string) string { return filepath.Join(dir, "canaries.json") }

func (l left) write(dir string) error {
	b, err := json.Marshal(l)
	if err == nil {
		err = os.WriteFile(recordFile(dir), b, 0o600)
	}
	return err
}

// Clear removes the canaries that are written down in a directory, where they are
// there and ours.
func Clear(record string) error {
	b, err := os.ReadFile(recordFile(record))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var l left
	// One that was cut off was being written, and nothing was made by then.
	if json.Unmarshal(b, &l) == nil {
		errs := []error{l.removeShm()}
		for _, dir := range l.Dirs {
			errs = append(errs, removeDir(dir))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return os.Remove(recordFile(record))
}

// removeDir removes a directory. Among those of all users another one may have
// taken the name of one that is gone: that stays.
func removeDir(dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 || !strings.HasPrefix(filepath.Base(dir), canaryPrefix) {
		return nil
	}
	return os.RemoveAll(dir)
}

// removeShm removes the segment that this user's process made with this key.
func (l left) removeShm() error {
	id, err := unix.SysvShmGet(l.Key, 0, 0)
	if err != nil {
		return nil // there is none, or it is another user's
	}
	var d unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &d); err != nil {
		return os.NewSyscallError("shmctl", err)
	}
	if int(d.Perm.Cuid) != os.Geteuid() || d.Perm.Mode&0o777 != shmMode || int(d.Cpid) != l.PID {
		return nil
	}
	_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	return os.NewSyscallError("shmctl", err)
}

// Remover is what Sweep needs of an engine.
type Remover interface {
	List(ctx context.Context) ([]*engine.Record, error)
	Remove(ctx context.Context, ref string, force bool) error
	RemoveTenant(ctx context.Context, tenant string, force bool) error
}

// Sweep removes what probes have left that were killed or failed: workloads, a
// tenant, canaries. What cannot be removed now stays written down for the next one, and is
// told.
func Sweep(ctx context.Context, e Remover, stale []*scratch.Dir, warn func(message string)) {
	for _, d := range stale {
		err := clearProbe(ctx, e, d)
		if err == nil {
			err = d.Remove()
		}
		if err != nil {
			d.Close()
			warn(fmt.Sprintf("not all is removed of what a probe made; the next one tries again: %v", err))
		}
	}
}

func clearProbe(ctx context.Context, e Remover, d *scratch.Dir) error {
	all, err := e.List(ctx)
	errs := []error{err, Clear(d.Path)}
	for _, r := range all {
		if r.Spec.Labels[Label] == d.ID {
			errs = append(errs, e.Remove(ctx, string(r.Spec.ID), true))
		}
	}
	if err := e.RemoveTenant(ctx, TenantName(d.ID), true); !errors.Is(err, engine.ErrNoTenant) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
