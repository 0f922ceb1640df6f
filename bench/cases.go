package main

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
)

// cases are everything that is timed, Bulkhead first in each: the ratios of the
// report are against the first.
func (f *field) cases() []testcase {
	return slices.Concat([]testcase{f.runBundle(), f.lifecycle(), f.execute(), f.runImage(), f.loadImage()}, f.netCases(), f.vmCases())
}

func (f *field) runBundle() testcase {
	c := testcase{
		name:  "oci-run",
		title: "`run` of /bin/true in one OCI bundle",
		about: "Command line to exit, by the runtime alone. The bundle asks for all namespaces with a user namespace " +
			"and an ID range, the default seccomp profile, eleven capabilities, no_new_privs, masked paths, a read-only " +
			"root, and limits of memory, processes and processor time; each contender but bubblewrap showed before that all this " +
			"is in force.",
	}
	for _, r := range f.runtimes {
		c.contenders = append(c.contenders, r.runCase())
	}
	if f.bubblewrap != "" {
		c.contenders = append(c.contenders, f.bubblewrapCase())
	}
	c.contenders = append(c.contenders, floor())
	return c
}

// bubblewrapCase comes as near to the bundle as bubblewrap gets.
func (f *field) bubblewrapCase() contender {
	return contender{
		label: "bubblewrap",
		note:  "no cgroup, seccomp, ID range or masked paths",
		run: func(ctx context.Context) error {
			_, err := command(ctx, f.bubblewrap, "--unshare-all", "--ro-bind", f.rootfs, "/", "--proc", "/proc", "--dev", "/dev",
				"--tmpfs", "/dev/shm", "--cap-drop", "ALL", "--new-session", "--die-with-parent", "--hostname", "bench", "/bin/true")
			return err
		},
	}
}

// floor is what starting any program costs here, measured the same way.
func floor() contender {
	return contender{label: "no isolation", note: "/bin/true on the host", run: func(ctx context.Context) error {
		_, err := command(ctx, busybox, "true")
		return err
	}}
}

func (f *field) lifecycle() testcase {
	c := testcase{
		name:  "oci-life",
		title: "`create` + `start` + `delete` of the same bundle",
		about: "Three commands one after the other, as an engine calls them; `delete --force` follows `start` at once.",
		share: 2,
	}
	for _, r := range f.runtimes {
		c.contenders = append(c.contenders, r.lifeCase())
	}
	return c
}

func (f *field) execute() testcase {
	c := testcase{
		name:  "exec",
		title: "`exec` of /bin/true in a running workload",
		about: "Command line to exit. Engines and bare runtimes are in one table because an engine's figure contains its runtime's.",
	}
	for _, e := range f.running() {
		c.contenders = append(c.contenders, e.execCase())
	}
	for _, r := range f.runtimes {
		c.contenders = append(c.contenders, r.execCase())
	}
	return c
}

func (f *field) runImage() testcase {
	c := testcase{
		name:  "run",
		title: "`run --rm --network none` of /bin/true from an image",
		about: "Command line to exit, from an image that is in the engine's store already, each engine with its own defaults.",
		share: 2,
	}
	for _, e := range f.running() {
		c.contenders = append(c.contenders, contender{
			label: e.label,
			setup: func(ctx context.Context) error {
				return runner(command).exits(ctx, 7, e.run(imageName, "/bin/sh", "-c", "exit 7")...)
			},
			run: func(ctx context.Context) error {
				_, err := command(ctx, e.run(imageName, "/bin/true")...)
				return err
			},
		})
	}
	return c
}

func (f *field) loadImage() testcase {
	c := testcase{
		name:  "load",
		title: "Load a layered image and run it once",
		about: "`load` of a `docker save` archive and `run --rm` of /bin/true from it, so that unpacking is included whenever it " +
			"happens: " + layeredAbout + " The image is removed between the rounds, outside the measured time.",
		share: 6,
	}
	archive := filepath.Join(f.dir, "layered.tar")
	made := sync.OnceValue(func() error { return layeredArchive(archive, f.rootfs) })
	for _, e := range f.engines {
		c.contenders = append(c.contenders, contender{
			label: e.label,
			setup: func(context.Context) error { return made() },
			run: func(ctx context.Context) error {
				return runner(command).all(ctx,
					e.cmd(append(append([]string{}, e.loading...), archive)...),
					e.run(layeredName, "/bin/true"))
			},
			after: func(ctx context.Context) error {
				_, err := command(ctx, e.cmd(append(append([]string{}, e.removing...), layeredName)...)...)
				return err
			},
		})
	}
	return c
}

// execCase: another process in a running workload of the engine.
func (e engine) execCase() contender {
	name := "bulkhead-bench-exec" + e.suffix
	return contender{
		label: e.label,
		setup: func(ctx context.Context) error {
			if _, err := e.idle(ctx, name); err != nil {
				return err
			}
			return runner(command).exits(ctx, 7, e.cmd("exec", name, "/bin/sh", "-c", "exit 7")...)
		},
		teardown: func(ctx context.Context) error {
			return e.remove(ctx, name)
		},
		run: func(ctx context.Context) error {
			_, err := command(ctx, e.cmd("exec", name, "/bin/true")...)
			return err
		},
	}
}

// idle starts a workload that sleeps and returns its ID.
func (e engine) idle(ctx context.Context, name string) (string, error) {
	c := append(e.cmd("run", "-d", "--pull", "never", "--network", e.joined(), "--name", name), e.running...)
	return command(ctx, append(c, imageName, "/bin/sleep", "3600")...)
}

// remove ends a workload at once and removes it.
func (e engine) remove(ctx context.Context, name string) error {
	c := e.cmd("rm", "-f")
	_, err := command(ctx, append(append(c, e.atOnce...), name)...)
	return err
}
