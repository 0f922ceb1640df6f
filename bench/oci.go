package main

import (
	"context"
	"errors"
	"path/filepath"
)

// ociRuntime is a program with the command line of an OCI runtime.
type ociRuntime struct {
	label, note string
	path        string
	flags       []string
	key         string // names its files and its cgroup
	dir         string // holds its state and bundles
	do          runner
}

// cmd is a command line of the runtime.
func (r ociRuntime) cmd(args ...string) []string {
	c := append([]string{r.path, "--root", filepath.Join(r.dir, "state")}, r.flags...)
	return append(c, args...)
}

func (r ociRuntime) bundle(name string) string { return filepath.Join(r.dir, name) }

// findRuntimes looks for OCI runtimes and keeps those that can run the bundle.
// crun refuses machines that mix cgroup v1 and v2, so there it is shown v1 only.
func (f *field) findRuntimes(ctx context.Context) {
	for _, c := range []struct{ name, variable string }{
		{"bulkhead-oci", "BULKHEAD_OCI"}, {"runc", "RUNC"}, {"crun", "CRUN"}, {"runsc", "RUNSC"},
	} {
		p, err := program(c.name, c.variable)
		if err != nil {
			f.miss(c.name, err)
			continue
		}
		r := ociRuntime{label: c.name, path: p, key: c.name, do: command}
		if c.name == "runsc" {
			r.note = "a user-space kernel: another, stronger boundary"
			r.flags = []string{"--ignore-cgroups=false"}
		}
		err = f.tryRuntime(ctx, r)
		if err == nil {
			continue
		}
		f.miss(r.label, err)
		if c.name != "crun" {
			continue
		}
		r.label, r.key, r.note = "crun, shown cgroup v1 only", "crun-v1", "refuses this machine's mixture of cgroup v1 and v2"
		if r.do, err = withoutCgroup2(); err == nil {
			err = f.tryRuntime(ctx, r)
		}
		if err != nil {
			f.miss(r.label, err)
		}
	}
}

// tryRuntime makes the runtime's bundles and keeps it if it can run them and
// the hardening is in force.
func (f *field) tryRuntime(ctx context.Context, r ociRuntime) error {
	r.dir = filepath.Join(f.dir, r.key)
	for name, args := range map[string][]string{
		"true":  {"/bin/true"},
		"sleep": {"/bin/sleep", "3600"},
	} {
		if err := makeBundle(r.bundle(name), f.rootfs, "bulkhead-bench-"+r.key, args...); err != nil {
			return err
		}
	}
	if err := r.check(ctx, f.rootfs); err != nil {
		return err
	}
	f.runtimes = append(f.runtimes, r)
	return nil
}

// runCase: run of a bundle, from nothing to its end.
func (r ociRuntime) runCase() contender {
	return contender{label: r.label, note: r.note, run: func(ctx context.Context) error {
		_, err := r.do(ctx, r.cmd("run", "--bundle", r.bundle("true"), "run-"+r.key)...)
		return err
	}}
}

// lifeCase: create, start and delete as an engine calls them.
func (r ociRuntime) lifeCase() contender {
	id := "life-" + r.key
	return contender{label: r.label, note: r.note, run: func(ctx context.Context) error {
		return r.do.all(ctx,
			r.cmd("create", "--bundle", r.bundle("true"), id),
			r.cmd("start", id),
			r.cmd("delete", "--force", id))
	}}
}

// execCase: another process in a running container.
func (r ociRuntime) execCase() contender {
	id := "exec-" + r.key
	return contender{
		label: r.label, note: r.note,
		setup: func(ctx context.Context) error {
			if err := r.idle(ctx, id); err != nil {
				return err
			}
			return r.do.exits(ctx, 7, r.cmd("exec", id, "/bin/sh", "-c", "exit 7")...)
		},
		teardown: func(ctx context.Context) error {
			_, err := r.do(ctx, r.cmd("delete", "--force", id)...)
			return err
		},
		run: func(ctx context.Context) error {
			_, err := r.do(ctx, r.cmd("exec", id, "/bin/true")...)
			return err
		},
	}
}

// idle starts a container that sleeps.
func (r ociRuntime) idle(ctx context.Context, id string) error {
	err := r.do.all(ctx, r.cmd("create", "--bundle", r.bundle("sleep"), id), r.cmd("start", id))
	if err != nil {
		_, e := r.do(ctx, r.cmd("delete", "--force", id)...)
		err = errors.Join(err, e)
	}
	return err
}
