package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ErrNoSize tells that what a workload wrote lies on a disk that it shares.
var ErrNoSize = errors.New("its files are on its tenant's disk")

// WritableSize returns how many bytes of the disk the files take that a workload
// wrote, other than to volumes. A virtual machine's disk counts with the blocks
// that it has allocated.
func (e *Engine) WritableSize(ctx context.Context, r *Record) (int64, error) {
	switch {
	case r.Spec.VM.Tenant != "":
		return 0, fmt.Errorf("measure workload %s: %w", r.Spec.Name, ErrNoSize)
	case r.Machine != nil:
		return allocated(r.Machine.Data)
	}
	return volume.Tree(ctx, r.Upper)
}

// DiskSize returns how many bytes of the disk all take that is kept of a
// workload: its files, its log, its records. They come back when it is removed.
func (e *Engine) DiskSize(ctx context.Context, r *Record) (int64, error) {
	return volume.Tree(ctx, e.layout.Dir(r.Spec.ID))
}

// allocated returns the bytes of the disk that a file takes, 0 when there is
// none.
func allocated(path string) (int64, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return fi.Sys().(*syscall.Stat_t).Blocks * 512, nil
}

// PruneWorkloads removes the workloads that do not run and that want accepts. It
// returns their IDs and how many bytes of the disk they took.
func (e *Engine) PruneWorkloads(ctx context.Context, want func(*Record) bool) (removed []string, bytes int64, err error) {
	all, err := e.List(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range all {
		if r.Tenant() != "" || r.Status != workload.Created && r.Status != workload.Exited || !want(r) {
			continue
		}
		size, serr := e.DiskSize(ctx, r)
		rerr := e.Remove(ctx, string(r.Spec.ID), false)
		switch {
		case rerr == nil:
			removed, bytes = append(removed, string(r.Spec.ID)), bytes+size
			err = errors.Join(err, serr)
		case !errors.Is(rerr, workload.ErrRunning) && !errors.Is(rerr, workload.ErrNotFound): // it was started, or removed, meanwhile
			err = errors.Join(err, rerr)
		}
		if ctx.Err() != nil {
			return removed, bytes, ctx.Err()
		}
	}
	return removed, bytes, err
}
