package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/hook"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func runStart(c *command) (int, error) {
	e, err := c.store.open(c.ctx, c.id())
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
	if b.spec.Hooks != nil && len(b.spec.Hooks.StartContainer) > 0 { // they are forked by us
		if err := sealFor(b.spec); err != nil {
			return 0, err
		}
	}
	return 0, c.start(e, b)
}

// start lets the container's program run and runs the poststart hooks. A hook
// that fails ends the container (runtime-spec, runtime.md, lifecycle). From the
// start of the program on other commands may work on the container: a poststart hook
// may call one. After an error the lock is held, but if that is errNotExist or errBusy.
func (c *command) start(e *entry, b *box) error {
	h := b.spec.Hooks
	if h != nil {
		if err := c.startContainerHooks(b, h.StartContainer); err != nil {
			c.endAfterHook(b)
			return err
		}
	}
	if err := b.made.Start(c.ctx); err != nil {
		return startError(err)
	}
	if h == nil {
		return nil
	}
	e.unlock()
	err := hook.Run(c.ctx, hook.Poststart, b.spec.Hooks.Poststart, func() specs.State {
		return b.hookState(specs.StateRunning, b.made.Pid, b.spec)
	})
	if err == nil {
		return nil
	}
	if err2 := e.relock(c.ctx); err2 != nil {
		return errors.Join(err, err2)
	}
	c.endAfterHook(b)
	return err
}

// startContainerHooks runs hooks inside the container, as its user and as
// confined as it is. The container's program waits meanwhile.
func (c *command) startContainerHooks(b *box, hooks []specs.Hook) error {
	if len(hooks) == 0 {
		return nil
	}
	pid, err := pidInside(b.made.Pid)
	if err != nil {
		return err
	}
	state := func() specs.State { return b.hookState(specs.StateCreated, pid, b.spec) }
	return hook.RunIn(c.ctx, hook.StartContainer, hooks, state, func(ctx context.Context, h specs.Hook, stdio [3]*os.File) error {
		p := *b.spec.Process
		p.Args, p.Terminal, p.Cwd = h.Args, false, "/"
		if len(p.Args) == 0 {
			p.Args = []string{h.Path}
		}
		if len(h.Env) > 0 { // without an environment of its own a hook has the container's
			p.Env = h.Env
		}
		cfg, err := c.execConfig(b, &p)
		if err != nil {
			return err
		}
		cfg.Program, cfg.Stdio, cfg.Cgroup, cfg.PreserveFDs = h.Path, stdio, nil, 0
		proc, err := b.made.Exec(ctx, *cfg)
		if err != nil {
			return err
		}
		defer proc.Close()
		exit, err := proc.Wait(ctx)
		switch {
		case err != nil:
			_ = proc.Signal(syscall.SIGKILL) // it may have ended
			return err
		case exit.Signal != 0:
			return fmt.Errorf("ended by signal %d: %v", exit.Signal, syscall.Signal(exit.Signal))
		case exit.Code != 0:
			return fmt.Errorf("exit status %d", exit.Code)
		}
		return nil
	})
}

// endAfterHook ends a container whose hook failed.
func (c *command) endAfterHook(b *box) {
	if _, err := b.killAll(c.ctx, syscall.SIGKILL); err != nil {
		c.log.Warnf("end the container after a failed hook: %v", err)
	}
	_ = b.signal(syscall.SIGKILL) // it may have ended
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
