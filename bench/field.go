package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// field is everybody who takes part.
type field struct {
	dir, rootfs string
	runtimes    []ociRuntime
	bubblewrap  string
	engines     []engine // that keep images
	sandbox     []engine // Bulkhead's with gVisor, which has no store of its own
	guests      []guest
	outside     *outside
	meter       string   // the program that moves bytes
	absent      []string // who is not here, with the reason
	closers     []func() error
}

// An engine runs workloads from images that it keeps.
type engine struct {
	label    string
	args     []string // the program and its global flags
	suffix   string   // of workloads' names, where several share a store
	network  string   // that workloads are in, "" for none, see joined
	running  []string // flags of run that this machine needs
	loading  []string // the words that load a Docker archive
	removing []string // the words that remove an image
	atOnce   []string // flags of rm -f that make it not wait for the workload
	// helpers are programs that the engine starts beside each workload, daemons
	// those that serve all workloads, by the names of their executables.
	helpers, daemons []string
	dir              string // that its daemons, and no other engine's, have in their command lines
	versionArgs      []string
}

// cmd is a command line of the engine.
func (e engine) cmd(args ...string) []string {
	return append(append([]string{}, e.args...), args...)
}

// run is the command line of a workload that runs to its end and leaves nothing.
func (e engine) run(image string, args ...string) []string {
	return e.runIn(e.joined(), image, args...)
}

// joined is the network that workloads are in unless a case says otherwise.
func (e engine) joined() string { return cmp.Or(e.network, "none") }

// runIn is run in a network.
func (e engine) runIn(network, image string, args ...string) []string {
	c := append(e.cmd("run", "--rm", "--pull", "never", "--network", network), e.running...)
	return append(append(c, image), args...)
}

func newField(dir, rootfs string) *field { return &field{dir: dir, rootfs: rootfs} }

func (f *field) miss(name string, err error) {
	f.absent = append(f.absent, fmt.Sprintf("%s: %v", name, err))
}

// program is the path of a program that was built here, named by a variable, or
// installed.
func program(name, variable string) (string, error) {
	if p := os.Getenv(variable); p != "" {
		return exec.LookPath(p)
	}
	if p, err := filepath.Abs(filepath.Join("bin", name)); err == nil && (strings.HasPrefix(name, "bulkhead") || name == "runsc") {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return exec.LookPath(name)
}

// find looks for everybody and starts what has to be running. Virtual machines,
// whose kernel has to be fetched, only if they are wanted.
func (f *field) find(ctx context.Context, machines bool) {
	if o, err := makeOutside(ctx); err != nil {
		f.miss("a host outside", err)
	} else {
		f.outside = o
		f.closers = append(f.closers, o.close)
	}
	if p, err := program("bulkhead-meter", "BULKHEAD_METER"); err != nil {
		f.miss("what moves bytes through networks", err)
	} else {
		f.meter = p
	}
	f.findRuntimes(ctx)
	if p, err := program("bwrap", "BWRAP"); err != nil {
		f.miss("bubblewrap", err)
	} else {
		f.bubblewrap = p
	}
	for _, e := range []struct {
		name string
		find func(context.Context) (engine, error)
	}{
		{"bulkhead", f.findBulkhead},
		{"docker", f.findDocker},
		{"podman", f.findPodman},
	} {
		found, err := e.find(ctx)
		if err != nil {
			f.miss(e.name, err)
			continue
		}
		if err := f.load(ctx, found); err != nil {
			f.miss(e.name, err)
			continue
		}
		f.engines = append(f.engines, found)
		if e.name != "bulkhead" {
			continue
		}
		f.findSandbox(ctx, found)
		if machines {
			f.findGuests(ctx, found)
		}
	}
}

// running are all that run containers, those that share a store with another
// included.
func (f *field) running() []engine { return slices.Concat(f.engines, f.sandbox) }

// findSandbox adds gVisor as Bulkhead drives it, if its runtime is here.
func (f *field) findSandbox(ctx context.Context, e engine) {
	e.label, e.suffix = "bulkhead, gVisor", "-gvisor"
	e.running = []string{"--boundary", "gvisor"}
	if err := runner(command).exits(ctx, 7, e.run(imageName, "/bin/sh", "-c", "exit 7")...); err != nil {
		f.miss(e.label, err)
		return
	}
	f.sandbox = append(f.sandbox, e)
}

func (f *field) findBulkhead(context.Context) (engine, error) {
	p, err := program("bulkhead", "BULKHEAD")
	if err != nil {
		return engine{}, err
	}
	return engine{
		label:       "bulkhead",
		args:        []string{p, "--root", filepath.Join(f.dir, "bulkhead")},
		loading:     []string{"image", "load", "-i"},
		removing:    []string{"image", "rm"},
		helpers:     []string{"bulkhead-supervisor", "bulkhead"},
		versionArgs: []string{"version"},
	}, nil
}

// findPodman keeps Podman's files below the working directory, and its own
// choice of a runtime unless that cannot run a container here.
func (f *field) findPodman(ctx context.Context) (engine, error) {
	p, err := program("podman", "PODMAN")
	if err != nil {
		return engine{}, err
	}
	e := engine{
		label: "podman",
		args: []string{p, "--root", filepath.Join(f.dir, "podman"), "--runroot", filepath.Join(f.dir, "podman-run"),
			"--tmpdir", filepath.Join(f.dir, "podman-tmp"), "--cgroup-manager", "cgroupfs"},
		loading:     []string{"load", "-q", "-i"},
		removing:    []string{"rmi"},
		atOnce:      []string{"--time", "0"},
		helpers:     []string{"conmon"},
		versionArgs: []string{"--version"},
	}
	// Podman raises the limits of open files and processes, which a machine may
	// not allow; lower ones cost the same.
	limits := []string{"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"}
	var errs []error
	for _, v := range []struct {
		suffix         string
		flags, running []string
	}{
		{"", nil, nil},
		{"", nil, limits},
		{" with crun", []string{"--runtime", "crun"}, limits},
		{" with runc", []string{"--runtime", "runc"}, limits},
	} {
		try := e
		try.label += v.suffix
		try.args = append(e.cmd(), v.flags...)
		try.running = v.running
		err := f.load(ctx, try)
		if err == nil {
			_, err = command(ctx, try.run(imageName, "/bin/true")...)
		}
		if err == nil {
			return try, nil
		}
		errs = append(errs, err)
	}
	return engine{}, errors.Join(errs...)
}

// load gives the engine the image that all cases run.
func (f *field) load(ctx context.Context, e engine) error {
	archive := filepath.Join(f.dir, "small.tar")
	if _, err := os.Stat(archive); err != nil {
		if err := smallArchive(archive, f.rootfs); err != nil {
			return err
		}
	}
	_, err := command(ctx, e.cmd(append(append([]string{}, e.loading...), archive)...)...)
	return err
}

// versions asks everybody for theirs.
func (f *field) versions(ctx context.Context) []string {
	var list []string
	ask := func(label string, args ...string) {
		out, err := command(ctx, args...)
		if err != nil {
			out = "version unknown"
		}
		first, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
		list = append(list, label+": "+first)
	}
	for _, r := range f.runtimes {
		ask(r.label, r.path, "--version")
	}
	if f.bubblewrap != "" {
		ask("bubblewrap", f.bubblewrap, "--version")
	}
	for _, e := range f.engines {
		ask(e.label, e.cmd(e.versionArgs...)...)
	}
	return list
}

// close stops what find started, in reverse, and whatever a contender left.
func (f *field) close() {
	for i := len(f.closers) - 1; i >= 0; i-- {
		if err := f.closers[i](); err != nil {
			fmt.Fprintln(os.Stderr, "bench: clean up:", err)
		}
	}
	if err := endLeftovers(f.dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench: clean up:", err)
	}
	if err := unmountBelow(f.dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench: clean up:", err)
	}
}
