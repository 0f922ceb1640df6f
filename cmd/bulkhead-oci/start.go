package main

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/hook"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func runStart(c *command) (int, error) {
	e, err := c.store.open(c.id())
	if err != nil {
		return 0, err
	}
	defer e.Close()
	b, err := loadDir(e.dir)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	st, err := b.status()
	if err != nil {
		return 0, err
	}
	if st != specs.StateCreated {
		return 0, fmt.Errorf("cannot start container %s: it is %s, not created", b.ID, st)
	}
	return 0, c.start(b)
}

// start lets the container's program run and runs the poststart hooks. A hook
// that fails ends the container (runtime-spec, runtime.md, lifecycle).
func (c *command) start(b *box) error {
	if err := b.made.Start(); err != nil {
		return startError(err)
	}
	if b.spec.Hooks == nil {
		return nil
	}
	err := hook.Run(c.ctx, hook.Poststart, b.spec.Hooks.Poststart, func() specs.State {
		return b.hookState(specs.StateRunning, b.made.Pid, b.spec)
	})
	if err == nil {
		return nil
	}
	if _, err2 := b.killAll(c.ctx, 9); err2 != nil {
		c.log.Warnf("end the container after a failed hook: %v", err2)
	}
	_ = b.signal(9) // it may have ended
	return err
}

// startError says what became of a container that Start did not let run.
func startError(err error) error {
	switch {
	case errors.Is(err, workload.ErrRunning):
		return errors.New("cannot start a container that was started before")
	case errors.Is(err, workload.ErrNotRunning):
		return errors.New("cannot start a container that has stopped")
	}
	return err
}
