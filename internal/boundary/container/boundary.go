// Package container is the boundary "container": a hardened container on the
// host's kernel, made by package internal/container. It says what a workload's
// flags mean there: which capabilities, masks, filter, mounts.
package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/apparmor"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Boundary makes containers. Its zero value is ready.
type Boundary struct{}

var _ boundary.Explainer = Boundary{}

// Name returns "container".
func (Boundary) Name() string { return "container" }

// minimumKernel is the baseline: mount_setattr with ID maps under overlay,
// openat2, clone3, pidfds.
var minimumKernel = seccomp.KernelVersion{Major: 6, Minor: 1}

// Check wants root, Linux 6.1 and a cgroup file system.
func (Boundary) Check(context.Context) error {
	v, err := kernel()
	if err != nil {
		return err
	}
	if v.Major < minimumKernel.Major || v.Major == minimumKernel.Major && v.Minor < minimumKernel.Minor {
		return fmt.Errorf("%w: Linux %d.%d is older than 6.1, whose mount and ID-mapping calls containers are made with", workload.ErrUnsupported, v.Major, v.Minor)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: containers need root in this version", workload.ErrUnsupported)
	}
	lay, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if lay.Mode == cgroup.ModeNone {
		return fmt.Errorf("%w: no cgroup file system is mounted", workload.ErrUnsupported)
	}
	return nil
}

func kernel() (seccomp.KernelVersion, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return seccomp.KernelVersion{}, os.NewSyscallError("uname", err)
	}
	return seccomp.ParseKernelVersion(unix.ByteSliceToString(u.Release[:]))
}

// Needs asks for layers and, unless the host's user namespace is to be used,
// a range of IDs.
func (Boundary) Needs(s workload.Spec) boundary.Needs {
	return boundary.Needs{Root: boundary.Layers, IDRange: !s.Namespaces.HostUser}
}

// The files of this package in a workload's run-time directory.
const (
	ownDirectory = "container"
	cgroupFile   = "cgroup" // written before the cgroup is made
)

// Create makes the container of s.
func (b Boundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	cfg, err := b.config(ctx, s, p)
	if err != nil {
		return nil, err
	}
	if err := makeSources(s); err != nil {
		return nil, err
	}
	dir := filepath.Join(p.Dir, ownDirectory)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	i := &instance{id: s.ID, dir: dir, spec: s, runtime: cfg.Spec}
	if s.Security.SeccompReport {
		i.denied = func(d seccomp.Denied) { notice(p.Notice, d) }
		cfg.ReportDenied = i.denied
	}
	if i.cgroup, err = cgroup.New(p.Cgroup, cfg.Spec.Linux.Resources, cgroup.Options{Strict: true}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err = writeCgroupFile(dir, p.Cgroup); err == nil {
		err = i.cgroup.Create()
	}
	if err == nil {
		cfg.Cgroup = i.cgroup
		cfg.Stdio = [3]*os.File{p.Stdio.In, p.Stdio.Out, p.Stdio.Err}
		i.Container, err = container.Create(ctx, cfg)
	}
	if err != nil {
		return nil, errors.Join(err, i.Delete(context.WithoutCancel(ctx)))
	}
	return i, nil
}

// config is what Create and Explain have in common.
func (Boundary) config(ctx context.Context, s workload.Spec, p boundary.Prepared) (container.Config, error) {
	v, err := kernel()
	if err != nil {
		return container.Config{}, err
	}
	spec, err := runtimeSpec(s, p, v)
	if err != nil {
		return container.Config{}, err
	}
	profile, err := apparmor.Host{}.Resolve(ctx, s.Security.AppArmor)
	if err != nil {
		return container.Config{}, err
	}
	spec.Process.ApparmorProfile = profile.Name
	return container.Config{
		ID: string(s.ID), Dir: filepath.Join(p.Dir, ownDirectory), Spec: spec, User: s.Process.User,
		Layers:         &container.Layers{Lower: p.Layers, Upper: p.Upper, Work: p.Work, Volatile: s.AutoRemove},
		KillWithParent: true,
	}, nil
}

// notice reports a denied system call.
func notice(to func(string), d seccomp.Denied) {
	if to == nil {
		return
	}
	line := fmt.Sprintf("seccomp denied %s to process %d", d, d.PID)
	if d.Suppressed > 0 {
		line += fmt.Sprintf(", and %d calls before it", d.Suppressed)
	}
	to(line)
}

// makeSources makes missing directories that -v names, as Docker does. What
// exists may be anything, a single file too.
func makeSources(s workload.Spec) error {
	for _, m := range s.Mounts {
		if m.Type != "bind" || !m.CreateSource {
			continue
		}
		if _, err := os.Stat(m.Source); !errors.Is(err, fs.ErrNotExist) {
			continue // an error shows again, with its step, when the source is opened
		}
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return fmt.Errorf("mount source: %w", err)
		}
	}
	return nil
}

func writeCgroupFile(dir, path string) error {
	b, err := json.Marshal(path)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, cgroupFile), b, 0o600)
}

// Open finds what is left of a workload whose supervisor is gone.
func (Boundary) Open(_ context.Context, id workload.ID, dir string) (boundary.Instance, error) {
	i := &instance{id: id, dir: filepath.Join(dir, ownDirectory)}
	b, err := os.ReadFile(filepath.Join(i.dir, cgroupFile))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return i, nil // it never came to have a process
		}
		return nil, err
	}
	var path string
	if json.Unmarshal(b, &path) == nil && path != "" { // else the write was cut short, before the cgroup was made
		if i.cgroup, err = cgroup.Load(path, cgroup.Options{}); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if i.Container, err = container.Open(i.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return i, nil
}

// Explain prints the launch program of s.
func (b Boundary) Explain(s workload.Spec, p boundary.Prepared, w io.Writer) error {
	cfg, err := b.config(context.Background(), s, p)
	if err != nil {
		return err
	}
	m, err := cgroup.New(p.Cgroup, cfg.Spec.Linux.Resources, cgroup.Options{Strict: true})
	if err != nil {
		return err
	}
	cfg.Cgroup = m
	return container.WriteProgram(w, cfg)
}

// instance is one container.
type instance struct {
	*container.Container
	id      workload.ID
	dir     string
	spec    workload.Spec
	runtime *specs.Spec
	cgroup  *cgroup.Manager
	denied  func(seccomp.Denied)
	ended   ending
}

func (i *instance) Start(context.Context) error { return i.Container.Start() }

func (i *instance) Wait(ctx context.Context) (workload.Exit, error) {
	return i.ended.once(func() (workload.Exit, error) {
		e, err := i.Container.Wait(ctx)
		if err == nil && i.cgroup != nil {
			e.OOMKilled, _ = i.cgroup.OOMKilled() // the cgroup may be gone already
		}
		return e, err
	})
}

// ending remembers how a process ended: every call of Wait returns the same.
type ending struct {
	mu   sync.Mutex
	exit *workload.Exit
}

// once returns what is remembered, or what wait returns without an error.
func (e *ending) once(wait func() (workload.Exit, error)) (workload.Exit, error) {
	exit, err := wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exit != nil {
		return *e.exit, nil
	}
	if err == nil {
		e.exit = &exit
	}
	return exit, err
}

func (i *instance) Signal(_ context.Context, sig syscall.Signal) error {
	if i.Container == nil {
		return workload.ErrNotRunning
	}
	return i.Container.Signal(sig)
}

// SignalAll signals every process of the container.
func (i *instance) SignalAll(_ context.Context, sig syscall.Signal) error {
	return i.cgroup.Signal(sig)
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

func (i *instance) Terminal() boundary.Terminal { return terminalOf(i.Container.Terminal) }

// Exec runs another process in the container, with the container's own
// capabilities and filter.
func (i *instance) Exec(ctx context.Context, p workload.Process, stdio boundary.Stdio) (boundary.Process, error) {
	caps, err := capabilities(i.spec.Security)
	if err != nil {
		return nil, err
	}
	spec := process(i.spec, p, caps)
	spec.ApparmorProfile = i.runtime.Process.ApparmorProfile
	cfg := container.ExecConfig{
		Process: spec, User: p.User, Seccomp: i.runtime.Linux.Seccomp, KillWithParent: true, ReportDenied: i.denied,
		Stdio: [3]*os.File{stdio.In, stdio.Out, stdio.Err},
	}
	proc, err := i.Container.Exec(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &executed{p: proc}, nil
}

// Delete ends every process and removes cgroups and files.
func (i *instance) Delete(ctx context.Context) error {
	var err error
	switch {
	case i.Container != nil:
		if i.Container.Terminal != nil {
			i.Container.Terminal.Close()
		}
		err = i.Container.Delete(ctx)
	case i.cgroup != nil:
		err = i.cgroup.Kill(ctx)
	}
	if err == nil && i.cgroup != nil {
		err = i.cgroup.Destroy(ctx)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(i.dir)
}

// executed is a process made by Exec. Its pidfd is closed when its end has been
// seen, as a supervisor may see thousands.
type executed struct {
	p      *container.Process
	ended  ending
	mu     sync.RWMutex // of closed
	closed bool
}

func (e *executed) Wait(ctx context.Context) (workload.Exit, error) {
	exit, err := e.ended.once(func() (workload.Exit, error) { return e.p.Wait(ctx) })
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
func (e *executed) Terminal() boundary.Terminal { return terminalOf(e.p.Terminal()) }
func (e *executed) PID() int                    { return e.p.Pid() }

// terminal is the master side of a pseudoterminal.
type terminal struct{ *os.File }

func terminalOf(f *os.File) boundary.Terminal {
	if f == nil {
		return nil
	}
	return terminal{f}
}

// Resize sets the size that programs inside see, and signals them.
func (t terminal) Resize(rows, cols uint16) error {
	return os.NewSyscallError("ioctl TIOCSWINSZ", unix.IoctlSetWinsize(int(t.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
}
