package system

import (
	"context"
	"sync"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var _ boundary.Group = (*executed)(nil)

// executed is a process made by Exec. Its pidfd is closed when its end has been
// seen.
type executed struct {
	p        *container.Process
	terminal boundary.Terminal

	mu   sync.RWMutex
	exit *workload.Exit
}

// Wait returns how it ended; every call returns the same.
func (e *executed) Wait(ctx context.Context) (workload.Exit, error) {
	exit, err := e.p.Wait(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exit != nil {
		return *e.exit, nil
	}
	if err == nil {
		e.exit = &exit
		e.p.Close()
	}
	return exit, err
}

// Signal sends a signal to it.
func (e *executed) Signal(_ context.Context, sig syscall.Signal) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.exit != nil {
		return workload.ErrNotRunning
	}
	return e.p.Signal(sig)
}

// SignalGroup signals it and what it has started.
func (e *executed) SignalGroup(_ context.Context, sig syscall.Signal) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.exit != nil {
		return workload.ErrNotRunning
	}
	return e.p.SignalGroup(sig)
}

// Terminal is its terminal, nil if it has none.
func (e *executed) Terminal() boundary.Terminal { return e.terminal }

// PID is its process ID in the guest.
func (e *executed) PID() int { return e.p.Pid() }
