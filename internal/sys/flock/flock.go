// Package flock takes locks on open files, flock(2). They belong to the open file
// description: the last close of it frees them, so the end of a process does.
package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Take is flock(2), again after a signal. how is syscall.LOCK_SH or LOCK_EX,
// perhaps with LOCK_NB: then the error is syscall.EWOULDBLOCK where somebody else
// has the lock.
func Take(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR { //nolint:errorlint // raw errno
			return err
		}
	}
}

// Open opens the file with flags, os.O_RDWR|os.O_CREATE and mode 0600, and takes
// its lock for itself alone, waiting until ctx ends; the error is then the cause.
// waiting, if not nil, is called when somebody else has the lock. unlock closes
// the file.
func Open(ctx context.Context, name string, flags int, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := Wait(ctx, f, waiting); err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// Wait takes the lock of f for itself alone, as Open does. When ctx ends first, the
// error is its cause. On any error f is closed, or will be.
func Wait(ctx context.Context, f *os.File, waiting func()) error {
	err := Take(f, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		if waiting != nil {
			waiting()
		}
		// The call cannot be called off, so when ctx ends first, the lock is given
		// back as soon as it has come.
		done := make(chan error, 1)
		go func() { done <- Take(f, syscall.LOCK_EX) }()
		select {
		case err = <-done:
		case <-ctx.Done():
			go func() { <-done; f.Close() }()
			return context.Cause(ctx)
		}
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}
