// Package container is the boundary "container": a hardened container on the
// host's kernel, made by package internal/container. It says what a workload's
// flags mean there: which capabilities, masks, filter, mounts.
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/apparmor"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Boundary makes containers. Its zero value is ready.
type Boundary struct{}

var _ boundary.Explainer = Boundary{}

// Name returns "container".
func (Boundary) Name() string { return "container" }

// Check wants root, Linux 6.1 and a cgroup file system.
func (b Boundary) Check(context.Context) error { return runtimespec.CheckHost(b.Name()) }

// Needs asks for layers and, unless the host's user namespace is to be used,
// a range of IDs.
func (Boundary) Needs(s workload.Spec) boundary.Needs {
	return boundary.Needs{Root: boundary.Layers, IDRange: !s.Namespaces.HostUser, Network: boundary.Namespace}
}

// The files of this package in a workload's run-time directory.
const (
	ownDirectory = "container"
	cgroupFile   = "cgroup" // written before the cgroup is made
)

// Create makes the container of s.
func (b Boundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	specifying := trace.Step(ctx, "runtime specification")
	cfg, err := b.config(ctx, s, p)
	specifying.End()
	if err != nil {
		return nil, err
	}
	if err := runtimespec.MakeSources(s); err != nil {
		return nil, err
	}
	if s.AutoRemove {
		// A volatile overlay marks itself as not to be mounted again, as it may have
		// lost what it did not write back before a crash. One of an earlier run has
		// lost nothing: a workload that does not survive a crash is removed after it.
		if err := os.RemoveAll(filepath.Join(p.Work, "work", "incompat")); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(p.Dir, ownDirectory)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	i := &instance{id: s.ID, dir: dir, spec: s, runtime: cfg.Spec, root: -1, idBase: p.IDBase, idCount: p.IDCount}
	if s.Security.SeccompReport {
		i.denied = func(d seccomp.Denied) { notice(p.Notice, d) }
		cfg.ReportDenied = i.denied
	}
	making := trace.Step(ctx, "cgroup made")
	defer making.End()
	if i.cgroup, err = cgroup.New(p.Cgroup, cfg.Spec.Linux.Resources, cgroup.Options{Strict: true, Names: runtimespec.LimitNames(s.Resources)}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err = cgroup.SavePath(filepath.Join(dir, cgroupFile), p.Cgroup); err == nil {
		err = i.cgroup.Create()
	}
	making.End()
	if err == nil {
		cfg.Cgroup = i.cgroup
		cfg.Stdio = [3]*os.File{p.Stdio.In, p.Stdio.Out, p.Stdio.Err}
		if i.Container, err = container.Create(ctx, cfg); err == nil {
			i.terminal, err = boundary.TerminalOf(i.Container.Terminal)
		}
		if err == nil {
			err = i.openFiles(s, p)
		}
	}
	if err != nil {
		return nil, errors.Join(err, i.Delete(context.WithoutCancel(ctx)))
	}
	return i, nil
}

// config is what Create and Explain have in common.
func (Boundary) config(ctx context.Context, s workload.Spec, p boundary.Prepared) (container.Config, error) {
	v, err := runtimespec.Kernel()
	if err != nil {
		return container.Config{}, err
	}
	spec, err := runtimespec.Of(s, p, v)
	if err != nil {
		return container.Config{}, err
	}
	profile, err := apparmor.Host{}.Resolve(ctx, s.Security.AppArmor)
	if err != nil {
		return container.Config{}, err
	}
	spec.Process.ApparmorProfile = profile.Name
	if s.Init {
		if err := runtimespec.AddInit(spec, p.Init); err != nil {
			return container.Config{}, err
		}
	}
	return container.Config{
		ID: string(s.ID), Dir: filepath.Join(p.Dir, ownDirectory), Spec: spec, User: s.Process.User,
		Layers:         &container.Layers{Lower: p.Layers, Upper: p.Upper, Work: p.Work, Volatile: s.AutoRemove},
		KillWithParent: true, Late: p.Late,
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

// Open finds what is left of a workload whose supervisor is gone.
func (Boundary) Open(_ context.Context, id workload.ID, dir string) (boundary.Instance, error) {
	i := &instance{id: id, dir: filepath.Join(dir, ownDirectory)}
	var err error
	if i.cgroup, err = cgroup.OpenSaved(filepath.Join(i.dir, cgroupFile)); err != nil {
		return nil, err
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
	m, err := cgroup.New(p.Cgroup, cfg.Spec.Linux.Resources, cgroup.Options{Strict: true, Names: runtimespec.LimitNames(s.Resources)})
	if err != nil {
		return err
	}
	cfg.Cgroup = m
	for _, mount := range s.Mounts {
		if mount.CreateSource {
			cfg.MadeDirs = append(cfg.MadeDirs, mount.Source)
		}
	}
	return container.WriteProgram(w, cfg)
}
