// Package system runs an image as a whole system instead of as a container: the
// image's own init becomes the guest's first process, with all that this
// implies: every capability, the kernel's modules, mounts, containers of its own.
//
//	guest's mounts                      the system's mounts
//	  agent ── console's other side ◀──── /dev/console ── init ── services
//	  agent ── Exec ────────────────────▶ a process beside them
//
// What isolates it is the machine, and nothing else does. The package is a
// boundary of the agent's, like the one that makes containers; a guest holds one
// system and no other workload.
package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Machine is what only the guest's first process can do. Package pid1 implements
// it.
type Machine interface {
	// SwitchRoot makes PID 1 execute program with root as its root directory,
	// and returns when it runs, or the error of execve.
	SwitchRoot(root, program string, args, env []string) error
	// SystemOver says that the system has stopped.
	SystemOver()
	// PowerOff begins to end the machine.
	PowerOff()
}

// Boundary makes the system of a guest.
type Boundary struct {
	Machine Machine
	// Program is the path of the agent's own program, which the end of a system
	// needs.
	Program string
	// AgentCgroup is where the agent is to live from then on, so that an init that
	// takes over the root of the hierarchy does not take the agent along.
	AgentCgroup string

	once sync.Mutex
	made bool
}

var _ boundary.Boundary = (*Boundary)(nil)

// Name returns "system".
func (*Boundary) Name() string { return "system" }

// Check has nothing to look for.
func (*Boundary) Check(context.Context) error { return nil }

// Needs asks for an image that is mounted.
func (*Boundary) Needs(workload.Spec) boundary.Needs { return boundary.Needs{Root: boundary.Layers} }

// Open finds nothing: a system does not outlive its agent.
func (*Boundary) Open(context.Context, workload.ID, string) (boundary.Instance, error) {
	return nil, workload.ErrNotFound
}

// Create mounts the system's root and makes its console.
func (b *Boundary) Create(_ context.Context, s workload.Spec, p boundary.Prepared) (_ boundary.Instance, err error) {
	if len(s.Process.Args) == 0 {
		return nil, errors.New("a system without an init program")
	}
	b.once.Lock()
	defer b.once.Unlock()
	if b.made {
		return nil, fmt.Errorf("a system in this guest: %w", workload.ErrRunning)
	}
	i := &instance{b: b, spec: s, dir: p.Dir, root: filepath.Join(p.Dir, "root"), ended: make(chan struct{}), waiting: map[syscall.Signal]bool{}}
	i.Tree = &boundary.Tree{Open: i.openRoot, Upper: p.Upper, Layers: p.Layers}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.undo())
		}
	}()
	if err := b.settleAgent(); err != nil {
		return nil, fmt.Errorf("cgroup of the agent: %w", err)
	}
	every := specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"} // no rule would mean the few of a container
	m, err := cgroup.New(p.Cgroup, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{every}}, cgroup.Options{})
	if err != nil {
		return nil, err
	}
	if err := m.Create(); err != nil {
		return nil, err
	}
	i.cgroup = m
	if i.console, err = newConsole(p.Stdio.Out); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	t := &tree{dir: i.root}
	defer t.close()
	if err := t.mount(p, i.console.name, s.Mounts); err != nil {
		return nil, err
	}
	if err := t.write(p.Files, p.Upper, s, p.Notice); err != nil {
		return nil, err
	}
	if i.end, err = t.prepareEnd(b.Program); err != nil {
		return nil, fmt.Errorf("prepare the end: %w", err)
	}
	if i.exec, err = container.Adopt(string(s.ID), 1, p.Dir, p.Cgroup); err != nil {
		return nil, err
	}
	b.made = true
	return i, nil
}

// settleAgent moves this process into its own cgroup.
func (b *Boundary) settleAgent() error {
	if b.AgentCgroup == "" {
		return nil
	}
	if err := os.MkdirAll(b.AgentCgroup, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.AgentCgroup, "cgroup.procs"), []byte("0"), 0)
}

// environment is what the init gets. "container" would tell it that it runs in
// one, as images say that were made for that, and it would leave out half of
// its work.
func environment(env []string) []string {
	var out []string
	for _, e := range env {
		if name, _, _ := strings.Cut(e, "="); name != "container" {
			out = append(out, e)
		}
	}
	return out
}
