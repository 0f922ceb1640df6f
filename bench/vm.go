package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
)

// A guest is one kind of virtual machine that Bulkhead makes: a kernel, and
// the same kernel for QEMU driven by hand.
type guest struct {
	label  string // of Bulkhead's machine
	engine engine
	image  string // path of the kernel
	micro  bool   // boots on QEMU's microvm
	accel  qemu.Accel
}

// executor is what executes the guest, in words.
func (g guest) executor() string {
	if g.accel == qemu.TCG {
		return "software emulation"
	}
	return strings.ToUpper(string(g.accel))
}

// smallKernel names the image that "make guest-kernel" makes, for a machine
// whose own store has none called small.
const smallKernel = "BULKHEAD_SMALL_KERNEL"

// vmNames are the cases of virtual machines, as -only takes them.
var vmNames = []string{"vm-boot", "vm-attached", "vm-many", "vm-exec", "vm-image", "vm-disk", "vm-volume-read", "vm-volume-write", "vm-memory"}

// fetchKernel gives an engine's store Debian's kernel, which comes from its
// archive, by apt. It needs the machine's network.
func fetchKernel(ctx context.Context, e engine) error {
	_, err := command(ctx, e.cmd("kernel", "update")...)
	return err
}

// findGuests gives the engine's store the small kernel, if there is one, beside
// what fetchKernel has put there.
func (f *field) findGuests(ctx context.Context, e engine) {
	if _, err := exec.LookPath(qemuProgram); err != nil {
		f.miss("virtual machines", err)
		return
	}
	accel, err := qemu.Choose(ctx, "") // as the engine does
	if err != nil {
		f.miss("virtual machines", err)
		return
	}
	add := func(name, label string, micro bool, prepare func() error) {
		err := prepare()
		var path string
		if err == nil {
			path, err = command(ctx, e.cmd("kernel", "inspect", "--format", "{{.image}}", name)...)
		}
		g := guest{label: "bulkhead, " + label, engine: e, image: strings.TrimSpace(path), micro: micro, accel: accel}
		g.engine.label, g.engine.suffix = g.label, "-"+name
		g.engine.running = []string{"--boundary", "vm", "--kernel", name}
		if err == nil {
			err = runner(command).exits(ctx, 7, g.engine.run(imageName, "/bin/sh", "-c", "exit 7")...)
		}
		if err != nil {
			f.miss("virtual machine with "+label, err)
			return
		}
		f.guests = append(f.guests, g)
	}
	add("debian", "Debian's kernel", false, func() error { return notFetched() })
	add("small", "the small kernel", true, func() error {
		path := os.Getenv(smallKernel)
		if path == "" {
			out, err := command(ctx, e.args[0], "kernel", "inspect", "--format", "{{.image}}", "small")
			if err != nil {
				return fmt.Errorf("neither %s nor the machine's own store has it: %w", smallKernel, err)
			}
			path = strings.TrimSpace(out)
		}
		_, err := command(ctx, e.cmd("kernel", "add", "small", "--image", path)...)
		return err
	})
}

// plain is Bulkhead's container boundary, which the tables of machines show last.
func (f *field) plain() (engine, bool) {
	for _, e := range f.engines {
		if e.label == "bulkhead" {
			e.label, e.suffix = "bulkhead, container", "-container"
			return e, true
		}
	}
	return engine{}, false
}

// vmCases are what is timed of virtual machines.
func (f *field) vmCases() []testcase {
	if len(f.guests) == 0 {
		return nil
	}
	return append([]testcase{f.vmBoot(), f.vmAttached(), f.vmMany(), f.vmExec()}, f.diskCases()...)
}

const ready = "bench-ready"

func (f *field) vmBoot() testcase {
	c := testcase{
		name:  "vm-boot",
		title: "Virtual machine: from the command to the first output",
		about: "`run --rm --boundary vm` of echo from an image that is in the store, until its line arrives. A clone goes on from a " +
			"template, which was made before; it takes QEMU, the agent and the container in the guest. With a template of the image the " +
			"container is in the template, too; one that waited (`template warm`) takes no QEMU, either. A boot takes the kernel, too. " +
			"QEMU driven by hand boots the same kernel on the same machine type with " +
			"busybox as its first program, which prints a line: no disks, no container, no confinement of QEMU.",
		share: 3,
	}
	c.contenders = f.starts(nil)
	for _, g := range f.guests {
		h := byHand{guest: g, dir: f.dir, script: "echo " + ready}
		c.contenders = append(c.contenders, contender{
			label: h.label(),
			setup: func(context.Context) error { return h.makeInitramfs("") },
			timed: func(ctx context.Context) (time.Duration, error) { return firstOutput(ctx, h.command()...) },
		})
	}
	return c
}

// vmAttached is vmBoot of workloads as people have them.
func (f *field) vmAttached() testcase {
	return testcase{
		name:  "vm-attached",
		title: "Virtual machine with bridge, disk and volume: from the command to the first output",
		about: "The same with an interface and an address in the default network, and a volume, whose file the program reads before it " +
			"prints its line. The writable disk is always there. Nobody else is in the network: the name server is started each time.",
		share:      3,
		contenders: f.starts(f.attached),
	}
}

// attached is the engine with all that a workload usually has.
func (f *field) attached(e engine) engine {
	e.network = "bridge"
	return e.with("-v", filepath.Join(f.dir, sharedDir)+":/volume")
}

// sharedDir is what attached workloads mount, in the working directory.
const sharedDir = "shared"

// makeShared makes it, with a file that holds the line that starts wait for.
func makeShared(dir string) error {
	shared := filepath.Join(dir, sharedDir)
	return errors.Join(os.Mkdir(shared, 0o755), os.WriteFile(filepath.Join(shared, "line"), []byte(ready+"\n"), 0o644))
}

// starts are all ways to a first output, of machines and of containers, of
// workloads with what attach gives them, nil for nothing.
func (f *field) starts(attach func(engine) engine) []contender {
	var all []contender
	program := []string{"/bin/echo", ready}
	if attach == nil {
		attach = func(e engine) engine { return e }
	} else {
		program = []string{"/bin/cat", "/volume/line"}
	}
	run := func(ctx context.Context, e engine) (time.Duration, error) {
		return firstOutput(ctx, e.run(imageName, program...)...)
	}
	add := func(label string, setup func(context.Context) error, timed func(context.Context) (time.Duration, error)) {
		all = append(all, contender{label: label, setup: setup, timed: timed})
	}
	for _, g := range f.guests {
		e := attach(g.engine)
		add(g.label+", a clone of the image", func(ctx context.Context) error {
			for range often {
				if _, err := run(ctx, e); err != nil {
					return err
				}
			}
			return nil
		}, func(ctx context.Context) (time.Duration, error) { return run(ctx, e) })
	}
	for _, g := range f.guests {
		e, unlike := attach(g.engine), 0
		add(g.label+", a clone", nil, func(ctx context.Context) (time.Duration, error) {
			unlike++
			return run(ctx, e.with(unlikeOthers(unlike)...))
		})
	}
	for _, g := range f.guests {
		e := attach(g.engine).with(unlikeOthers(0)...) // no other contender takes what waits here
		add(g.label+", a clone that waited", nil, func(ctx context.Context) (time.Duration, error) {
			if err := e.warm(ctx, 1); err != nil {
				return 0, err
			}
			d, err := run(ctx, e)
			// Nothing is made in its place while others are measured.
			return d, errors.Join(err, e.warm(ctx, 0))
		})
	}
	for _, g := range f.guests {
		e := attach(g.booting())
		add(g.label+", booted", nil, func(ctx context.Context) (time.Duration, error) { return run(ctx, e) })
	}
	for _, e := range f.running() {
		e := attach(e)
		add(e.label+", a container", nil, func(ctx context.Context) (time.Duration, error) { return run(ctx, e) })
	}
	return all
}

// warm keeps machines waiting for what run runs.
func (e engine) warm(ctx context.Context, count int) error {
	args := append(e.cmd("template", "warm", "--rm", "--pull", "never", "--network", e.joined(), "--count", strconv.Itoa(count)), e.running...)
	_, err := command(ctx, append(args, imageName)...)
	return err
}

// booting is the engine with machines that boot.
func (g guest) booting() engine { return g.engine.with("--no-template") }

// with is the engine with more options of run.
func (e engine) with(flags ...string) engine {
	e.running = slices.Concat(e.running, flags)
	return e
}

// often is how many starts of an image make a template of it, the one that makes
// it included.
const often = 3

// unlikeOthers are options that no other start has, so that there is no template
// of the image for it, only the generic one.
func unlikeOthers(n int) []string { return []string{"--ulimit", fmt.Sprintf("core=%d", n)} }

// vmMany: many at once, as a burst of work does.
func (f *field) vmMany() testcase {
	c := testcase{
		name:  "vm-many",
		title: fmt.Sprintf("%d at once: from the first command to the last one's output", many),
		about: "All commands are started at the same time, each `run --rm` from an image that is in the store, with bridge, disk and volume as above, " +
			"and the time is that until the last line has arrived.",
		share: 10,
	}
	add := func(label string, e engine) {
		e = f.attached(e)
		c.contenders = append(c.contenders, contender{label: label, timed: func(ctx context.Context) (time.Duration, error) {
			return atOnce(ctx, many, e.run(imageName, "/bin/cat", "/volume/line"))
		}})
	}
	for _, g := range f.guests {
		add(g.label+", clones", g.engine)
	}
	for _, e := range f.running() {
		add(e.label+", containers", e)
	}
	return c
}

// many is how many vmMany starts.
const many = 20

// atOnce runs n of one command, and returns when the last had its output.
func atOnce(ctx context.Context, n int, args []string) (last time.Duration, err error) {
	times, errs := make([]time.Duration, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { times[i], errs[i] = firstOutput(ctx, args...) })
	}
	all.Wait()
	return slices.Max(times), errors.Join(errs...)
}

func (f *field) vmExec() testcase {
	c := testcase{
		name:  "vm-exec",
		title: "Virtual machine: `exec` of /bin/true in a running workload",
		about: "Command line to exit; the workload has bridge, disk and volume.",
	}
	for _, g := range f.guests {
		c.contenders = append(c.contenders, f.attached(g.engine).execCase())
	}
	if e, ok := f.plain(); ok {
		c.contenders = append(c.contenders, f.attached(e).execCase())
	}
	return c
}

// firstOutput runs a command to its end, and returns the time until it wrote a
// line that holds ready.
func firstOutput(ctx context.Context, args ...string) (d time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(out)
	for d == 0 && lines.Scan() {
		if strings.Contains(lines.Text(), ready) {
			d = time.Since(start)
		}
	}
	_, err = io.Copy(io.Discard, out)
	err = errors.Join(lines.Err(), err, cmd.Wait())
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, lastLine([]byte(errs.String())))
	}
	if d == 0 {
		return 0, fmt.Errorf("%s: %q was not printed", filepath.Base(args[0]), ready)
	}
	return d, nil
}
