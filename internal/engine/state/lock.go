package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ErrLocked tells that another process holds a workload's lock: its supervisor,
// or a command in the middle of a change.
var ErrLocked = errors.New("workload is locked")

// Lock is a held lock of one workload. It is a flock(2), so the kernel frees it
// when the last process that has the descriptor is gone. A supervisor inherits
// it from the command that starts it, without a gap.
type Lock struct {
	File *os.File
}

// Unlock frees the lock unless another process shares it.
func (k *Lock) Unlock() { k.File.Close() }

// TryLock locks a workload, or returns an error wrapping ErrLocked or
// workload.ErrNotFound.
func (l Layout) TryLock(id workload.ID) (*Lock, error) {
	path := filepath.Join(l.Dir(id), "lock")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = workload.ErrNotFound
		}
		return nil, fmt.Errorf("lock workload %s: %w", id.Short(), err)
	}
	if err := flock.Take(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock workload %s: %w", id.Short(), err)
	}
	// It may have been removed between opening and locking.
	if _, err := os.Lstat(path); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock workload %s: %w", id.Short(), workload.ErrNotFound)
	}
	return &Lock{f}, nil
}

// NewLock makes the lock of a workload whose directory was just made, and holds
// it. The file gets its name only when it is locked: another command that found
// it free would take the workload for one left half way, and remove it.
func (l Layout) NewLock(id workload.ID) (*Lock, error) {
	path := filepath.Join(l.Dir(id), "lock")
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the lock of workload %s: %w", id.Short(), err)
	}
	if err = flock.Take(f, syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make the lock of workload %s: %w", id.Short(), err)
	}
	return &Lock{f}, nil
}

// Retry calls f until it returns no error that wraps ErrLocked. Between calls
// it waits a little longer each time: the kernel offers no way to wait for a
// flock that a context could end. f tries whatever else may succeed, such as
// asking the supervisor.
func Retry(ctx context.Context, f func() error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := f()
		if !errors.Is(err, ErrLocked) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// Exclusive runs f while no other process is in Exclusive on the same root. It
// is for the few system calls in which names and IDs change hands.
func (l Layout) Exclusive(f func() error) error {
	file, err := os.OpenFile(filepath.Join(l.Root, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock state directory: %w", err)
	}
	defer file.Close()
	if err := flock.Take(file, syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock state directory: %w", err)
	}
	return f()
}
