package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func runExec(c *command) (int, error) {
	b, err := c.store.load(c.id())
	if err != nil {
		return 0, err
	}
	defer b.Close()
	if err := sealFor(b.spec); err != nil {
		return 0, err
	}
	process, err := c.execProcess(b.spec.Process)
	if err != nil {
		return 0, err
	}
	c.warnCapabilities(process.Capabilities)
	attached := !c.flags.on("detach")
	if err := c.checkConsole(process.Terminal, attached); err != nil {
		return 0, err
	}
	cfg, err := c.execConfig(b, process)
	if err != nil {
		return 0, err
	}
	cfg.Detached = !attached
	p, err := b.made.Exec(c.ctx, *cfg)
	if errors.Is(err, workload.ErrNotRunning) {
		return 0, errNotRunning
	}
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if err := c.handOutProcess(p); err != nil {
		return 0, errors.Join(err, p.Signal(9))
	}
	if !attached {
		return 0, nil
	}
	s, err := attach(c, p.Terminal(), p.Signal)
	if err != nil {
		return 0, errors.Join(err, p.Signal(9))
	}
	defer s.close()
	exit, err := p.Wait(context.WithoutCancel(c.ctx))
	if err != nil {
		return 0, err
	}
	s.drain()
	return exit.Code, nil
}

// execConfig says how the process is to be run in the container, if it can.
func (c *command) execConfig(b *box, process *specs.Process) (*container.ExecConfig, error) {
	st, err := b.status()
	if err != nil {
		return nil, err
	}
	paused := st == paused
	switch {
	case st == specs.StateStopped || st == specs.StateCreating:
		return nil, errNotRunning
	case paused && !c.flags.on("ignore-paused"):
		return nil, errors.New("cannot exec in a paused container; resume it, or use --ignore-paused")
	}
	preserve, err := c.preserved(0)
	if err != nil {
		return nil, err
	}
	cfg := &container.ExecConfig{
		Process: process, Seccomp: b.spec.Linux.Seccomp, Personality: b.spec.Linux.Personality,
		MemoryPolicy: b.spec.Linux.MemoryPolicy,
		PreserveFDs:  preserve, WhilePaused: paused, NoNewKeyring: b.NoNewKeyring,
		Listener: func(f *os.File, pid int) error {
			defer f.Close()
			return sendSeccomp(b, f, pid, st)
		},
	}
	if !process.Terminal {
		cfg.Stdio = [3]*os.File{c.stdin, c.stdout, c.stderr}
	}
	if given := c.flags["cgroup"]; len(given) > 0 {
		if cfg.Cgroup, err = b.subCgroup(given); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// handOutProcess tells whoever asked for it of the new process.
func (c *command) handOutProcess(p *container.Process) error {
	if err := writePidFile(c.flags.last("pid-file", ""), p.Pid()); err != nil {
		return err
	}
	if err := sendPidfd(c.flags.last("pidfd-socket", ""), p.Pid()); err != nil {
		return err
	}
	socket := c.flags.last("console-socket", "")
	if socket == "" {
		return nil
	}
	if p.Terminal() == nil {
		return fmt.Errorf("process %d has no terminal", p.Pid())
	}
	defer p.Terminal().Close()
	return sendTerminal(socket, p.Terminal())
}
