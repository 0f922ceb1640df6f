package container

import (
	"context"
	"os"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var (
	_ boundary.NetNS   = (*instance)(nil)
	_ boundary.Adopter = (*instance)(nil)
)

// instance is one container.
type instance struct {
	*container.Container
	id      workload.ID
	dir     string
	spec    workload.Spec
	runtime *specs.Spec
	cgroup  *cgroup.Manager
	denied  func(seccomp.Denied)
	// idBase is the first host ID of the workload's range, idCount its length.
	idBase, idCount uint32
	ended           boundary.Ending

	*boundary.Tree     // its files; nil for one that Open found
	root           int // held for Tree

	terminal boundary.Terminal // nil without one
}

// Adopt says whose the container is that was made for nobody.
func (i *instance) Adopt(_ context.Context, a boundary.Adoption) error {
	args := a.Args
	if i.spec.Init {
		args = append([]string{runtimespec.InitTarget}, args...)
	}
	if err := i.SetProgram(args, a.Env); err != nil {
		return err
	}
	if a.Hostname != "" && !i.spec.Namespaces.HostUTS {
		if err := i.SetHostname(a.Hostname); err != nil {
			return err
		}
	}
	i.id, i.spec.ID, i.spec.Hostname, i.spec.Process.Args, i.spec.Process.Env = a.ID, a.ID, a.Hostname, a.Args, a.Env
	return nil
}

// NetNS opens the container's network namespace.
func (i *instance) NetNS() (*os.File, error) {
	if i.Container == nil {
		return nil, workload.ErrNotRunning
	}
	return i.Container.NetNS()
}

func (i *instance) Wait(ctx context.Context) (workload.Exit, error) {
	return i.ended.Once(func() (workload.Exit, error) {
		e, err := i.Container.Wait(ctx)
		if err == nil && i.cgroup != nil {
			e.OOMKilled, _ = i.cgroup.OOMKilled() // the cgroup may be gone already
		}
		return e, err
	})
}

func (i *instance) Signal(_ context.Context, sig syscall.Signal) error {
	if i.Container == nil {
		return workload.ErrNotRunning
	}
	return i.Container.Signal(sig)
}

// Pause and Resume freeze and thaw the cgroup.
func (i *instance) Pause(ctx context.Context) error { return i.cgroup.Freeze(ctx) }

// Resume continues what Pause stopped.
func (i *instance) Resume(context.Context) error { return i.cgroup.Thaw() }

// Processes lists the container's processes by their host IDs.
func (i *instance) Processes(context.Context) ([]int, error) { return i.cgroup.Pids(true) }

func (i *instance) PID() int {
	if i.Container == nil {
		return 0
	}
	return i.Container.Pid
}

func (i *instance) Terminal() boundary.Terminal { return i.terminal }

// Exec runs another process in the container, with the container's own
// capabilities and filter.
func (i *instance) Exec(ctx context.Context, p workload.Process, stdio boundary.Stdio) (boundary.Process, error) {
	caps, err := runtimespec.Capabilities(i.spec.Security)
	if err != nil {
		return nil, err
	}
	spec := runtimespec.Process(i.spec, p, caps)
	spec.ApparmorProfile = i.runtime.Process.ApparmorProfile
	cfg := container.ExecConfig{
		Process: spec, User: p.User, Seccomp: i.runtime.Linux.Seccomp, KillWithParent: true, ReportDenied: i.denied,
		Stdio: [3]*os.File{stdio.In, stdio.Out, stdio.Err},
	}
	proc, err := i.Container.Exec(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t, err := boundary.TerminalOf(proc.Terminal())
	if err != nil {
		proc.Signal(syscall.SIGKILL)
		proc.Wait(ctx)
		proc.Close()
		return nil, err
	}
	return &executed{p: proc, terminal: t}, nil
}

// Delete ends every process and removes cgroups and files.
func (i *instance) Delete(ctx context.Context) error {
	var err error
	ending := trace.Step(ctx, "processes ended, mounts removed")
	switch {
	case i.Container != nil:
		i.closeFiles()
		if i.terminal != nil {
			i.terminal.Close()
		}
		err = i.Container.Delete(ctx)
	case i.cgroup != nil:
		err = i.cgroup.Kill(ctx)
	}
	ending.End()
	removing := trace.Step(ctx, "cgroup removed")
	if err == nil && i.cgroup != nil {
		err = i.cgroup.Destroy(ctx)
	}
	removing.End()
	if err != nil {
		return err
	}
	return os.RemoveAll(i.dir)
}

var _ boundary.Group = (*executed)(nil)

// executed is a process made by Exec. Its pidfd is closed when its end has been
// seen, as a supervisor may see thousands.
type executed struct {
	p        *container.Process
	terminal boundary.Terminal
	ended    boundary.Ending
	mu       sync.RWMutex // of closed
	closed   bool
}

func (e *executed) Wait(ctx context.Context) (workload.Exit, error) {
	exit, err := e.ended.Once(func() (workload.Exit, error) { return e.p.Wait(ctx) })
	if err == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.closed {
			e.closed = true
			e.p.Close()
		}
	}
	return exit, err
}

func (e *executed) Signal(_ context.Context, sig syscall.Signal) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return workload.ErrNotRunning
	}
	return e.p.Signal(sig)
}

// SignalGroup signals the process and what it has started.
func (e *executed) SignalGroup(_ context.Context, sig syscall.Signal) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return workload.ErrNotRunning
	}
	return e.p.SignalGroup(sig)
}

func (e *executed) Terminal() boundary.Terminal { return e.terminal }
func (e *executed) PID() int                    { return e.p.Pid() }
