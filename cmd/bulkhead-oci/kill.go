package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/hook"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pidfd"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var errNotRunning = errors.New("container not running")

func isNotExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotExist)
}

// parseSignal also takes 0, which asks only whether there is a process.
func parseSignal(s string) (syscall.Signal, error) {
	if s == "0" {
		return 0, nil
	}
	return workload.ParseSignal(s)
}

func runKill(c *command) (int, error) {
	name := "TERM"
	if len(c.args) == 2 {
		name = c.args[1]
	}
	sig, err := parseSignal(name)
	if err != nil {
		return 0, err
	}
	b, err := c.store.load(c.id())
	if err != nil {
		return 0, err
	}
	defer b.Close()
	all := c.flags.on("all")
	st, err := b.status()
	if err != nil {
		return 0, err
	}
	// Without a pid namespace of its own the container does not end with its
	// first process: SIGKILL is meant for all of them.
	if all || sig == syscall.SIGKILL && b.made != nil && b.made.KillAll {
		if done, err := b.killAll(c.ctx, sig); err != nil || done {
			return 0, err
		}
	}
	if st == specs.StateStopped || st == specs.StateCreating {
		if all {
			return 0, nil
		}
		return 0, errNotRunning
	}
	if err := b.signal(sig); err != nil {
		return 0, err
	}
	if sig == syscall.SIGKILL && st == paused {
		return 0, b.thaw() // cgroup v1: a frozen process dies only when it goes on
	}
	return 0, nil
}

// killAll signals every process in the container's cgroup. It reports false
// when there is none, or no cgroup to find them by.
func (b *box) killAll(ctx context.Context, sig syscall.Signal) (bool, error) {
	m, err := b.cgroup()
	if err != nil || m == nil {
		return false, err
	}
	pids, err := m.Pids(true)
	if err != nil || len(pids) == 0 {
		return false, ignoreNotExist(err)
	}
	if sig == syscall.SIGKILL {
		return true, m.Kill(ctx)
	}
	return true, m.Signal(sig)
}

func ignoreNotExist(err error) error {
	if isNotExist(err) {
		return nil
	}
	return err
}

// signal sends sig to the container's first process.
func (b *box) signal(sig syscall.Signal) error {
	if b.made == nil {
		return errNotRunning
	}
	err := b.made.Signal(sig)
	if errors.Is(err, workload.ErrNotRunning) {
		return errNotRunning
	}
	return err
}

func (b *box) thaw() error {
	m, err := b.cgroup()
	if err != nil || m == nil {
		return err
	}
	return m.Thaw()
}

func runDelete(c *command) (int, error) {
	defer func() { // also after a delete that finds no container: an earlier one may have been cut short
		if err := c.store.sweep(); err != nil {
			c.log.Warnf("remove what earlier deletions left: %v", err)
		}
	}()
	force := c.flags.on("force")
	e, err := c.store.open(c.ctx, c.id())
	if err != nil {
		if force && errors.Is(err, errNotExist) {
			return 0, nil
		}
		return 0, err
	}
	defer e.Close()
	b, err := loadDir(e.dir)
	if errors.Is(err, errNotExist) { // a create that was killed before it made anything
		return 0, e.remove()
	}
	if err != nil && force {
		unread := err
		// What is to be ended is recorded apart from the configuration.
		if b, err = loadMade(e.dir); err == nil {
			c.log.Warnf("container %s is deleted without its poststop hooks: %v", c.id(), unread)
			b.spec = new(specs.Spec)
		}
	}
	if err != nil {
		return 0, err
	}
	defer b.Close()
	if force {
		return 0, c.destroy(e, b)
	}
	st, err := b.status()
	if err != nil {
		return 0, err
	}
	// A created container has run nothing yet; containerd deletes it as it is.
	// One in creation whose lock is free was left behind by a killed create.
	created := b.made != nil && b.made.Status() == workload.Created // frozen or not
	if (st == specs.StateRunning || st == paused) && !created {
		return 0, fmt.Errorf("cannot delete container %s that is not stopped: %s", b.ID, st)
	}
	return 0, c.destroy(e, b)
}

// endTime bounds the wait for killed processes to be gone. Tests set it.
var endTime = 10 * time.Second

// destroy ends whatever runs in the container and removes all that was made
// for it, then runs the poststop hooks. It may be called in any state and, if
// it fails, again.
func (c *command) destroy(e *entry, b *box) error {
	// What was begun is finished even if this command is told to end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), endTime)
	defer cancel()
	if err := b.end(ctx); err != nil {
		return err
	}
	if err := e.remove(); err != nil {
		return err
	}
	c.poststop(b)
	return nil
}

// poststop runs the poststop hooks, to their end. What fails in them is logged and
// nothing else (runtime.md, lifecycle).
func (c *command) poststop(b *box) {
	if b.spec.Hooks == nil {
		return
	}
	ctx := context.WithoutCancel(c.ctx) // hooks have timeouts of their own
	err := hook.RunAll(ctx, hook.Poststop, b.spec.Hooks.Poststop, func() specs.State {
		return b.hookState(specs.StateStopped, 0, b.spec)
	})
	if err != nil {
		c.log.Warnf("%v", err)
	}
}

// end kills every process of the container, waits until they are gone and
// removes the cgroup.
func (b *box) end(ctx context.Context) error {
	if err := b.signal(syscall.SIGKILL); err != nil && !errors.Is(err, errNotRunning) {
		return err
	}
	m, err := b.cgroup()
	if err != nil {
		return err
	}
	if m != nil && !b.CgroupMade {
		// A create was cut short before or while it made the cgroup. Whoever is in
		// it came from elsewhere.
		if full, err := m.Populated(); err != nil || full {
			return ignoreNotExist(err)
		}
	}
	if m != nil {
		if err := m.Kill(ctx); err != nil {
			return err
		}
	}
	if b.made != nil {
		if err := waitGone(ctx, b.made); err != nil {
			return err
		}
	}
	if m == nil {
		return nil
	}
	if err := m.Destroy(ctx); err != nil {
		return err
	}
	m.RemoveEmptyParents(cgroupBase)
	return nil
}

// waitGone waits until the killed first process runs no more code. It may stay
// a zombie: its parent is not this program.
func waitGone(ctx context.Context, made *container.Container) error {
	if made.Status() == workload.Exited {
		return nil
	}
	f, err := pidfd.Open(made.Pid)
	if pidfd.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := pidfd.Wait(ctx, f); err != nil {
		return fmt.Errorf("process %d does not end: %w", made.Pid, err)
	}
	return nil
}

func runPause(c *command) (int, error)  { return 0, c.freeze(specs.StateRunning, true) }
func runResume(c *command) (int, error) { return 0, c.freeze(paused, false) }

// freeze pauses or resumes a container that is in the state from.
func (c *command) freeze(from specs.ContainerState, freeze bool) error {
	e, err := c.store.open(c.ctx, c.id())
	if err != nil {
		return err
	}
	defer e.Close()
	b, err := loadDir(e.dir)
	if err != nil {
		return err
	}
	defer b.Close()
	st, err := b.status()
	if err != nil {
		return err
	}
	if st != from && !(freeze && st == specs.StateCreated) {
		return fmt.Errorf("container %s is %s, not %s", b.ID, st, from)
	}
	m, err := b.cgroup()
	if err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("container %s has no cgroup, it cannot be paused", b.ID)
	}
	if freeze {
		return m.Freeze(c.ctx)
	}
	return m.Thaw()
}
