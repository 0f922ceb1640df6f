// Command guest runs the project's tests inside a QEMU guest that boots Debian's
// own kernel, with pure cgroup v2 and AppArmor: the host that the project
// promises to support, whatever machine the tests are started on.
//
// It compiles the test binaries, puts them on a disk together with the source
// tree, boots, follows what the guest's init says (stream.go), and counts
// (count.go). The guest's disks come from the script named image; its first
// program is the script named init.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// options is what the command line asks for.
type options struct {
	packages []string      // import path patterns
	testArgs []string      // arguments of every test binary
	timeout  time.Duration // for each package, or for the script
	boot     time.Duration // until the guest reports that it is up
	memory   string        // QEMU's -m
	cpus     int
	kernel   string // flavour of Debian's kernel: amd64 or cloud-amd64
	with     string // Debian packages in the guest beside the usual ones
	script   string // run this file instead of tests
	shell    bool   // an interactive shell instead of tests
	copies   copies // files and directories for the guest
	results  string // where the guest's /guest/results is copied to
	kvm      bool   // the guest has /dev/kvm and QEMU, and boots guests of its own
	tags     string // build tags of the tests
	leaks    bool   // what a package leaves behind is a failure
	verbose  bool   // show every test's output
	keep     bool   // keep the run's directory
}

// copies collects the -copy flags, each SOURCE or SOURCE:NAME.
type copies []string

func (c *copies) String() string     { return strings.Join(*c, " ") }
func (c *copies) Set(s string) error { *c = append(*c, s); return nil }

const usage = `usage: tests/guest/run [flags] [package ...]

Runs test packages (default ./tests/guest/probe ./internal/... ./cmd/...) inside
a QEMU guest with Debian's kernel, pure cgroup v2 and AppArmor.

  tests/guest/run ./internal/container/...        only some packages
  tests/guest/run -test '^TestLimits$' ./internal/container
  tests/guest/run -shell                          look around
  tests/guest/run -script FILE -copy DIR          run anything
  tests/guest/run -kvm                            hardware virtualization, emulated

`

// parse reads the command line. Its error has been printed already.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var test string
	var short bool
	var repeat int
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	flags.StringVar(&test, "test", "", "run only the tests that match this `regexp`")
	flags.IntVar(&repeat, "count", 1, "run each test this many times")
	flags.BoolVar(&short, "short", false, "tell long tests to shorten")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Minute, "limit for each package, or for the script")
	flags.DurationVar(&o.boot, "boot", 3*time.Minute, "limit for booting")
	flags.StringVar(&o.memory, "memory", "3G", "the guest's memory")
	flags.IntVar(&o.cpus, "cpus", 2, "the guest's processors")
	flags.StringVar(&o.kernel, "kernel", "amd64", "flavour of Debian's kernel: amd64 or cloud-amd64")
	flags.StringVar(&o.with, "with", "", "more Debian `packages` for the guest")
	flags.StringVar(&o.script, "script", "", "run this `file` in the guest instead of tests")
	flags.BoolVar(&o.shell, "shell", false, "an interactive shell in the guest instead of tests")
	flags.Var(&o.copies, "copy", "put `source[:name]` in the guest as /guest/NAME; may be repeated")
	flags.BoolVar(&o.kvm, "kvm", false, "give the guest /dev/kvm by emulated SVM, and QEMU, and run the tests named TestKVM")
	flags.StringVar(&o.results, "results", "", "copy the guest's /guest/results into this `directory`")
	flags.BoolVar(&o.leaks, "leaks", true, "fail a package that leaves processes, cgroups, mounts or links behind")
	flags.BoolVar(&o.verbose, "v", false, "show the output of every test")
	flags.BoolVar(&o.keep, "keep", false, "keep the console log and the job disk")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.packages, o.tags = flags.Args(), "guest"
	if o.kvm {
		o.setKVM(&test)
	}
	if len(o.packages) == 0 {
		o.packages = []string{"./tests/guest/probe", "./internal/...", "./cmd/..."}
	}
	// In this form the test binary marks its own lines for test2json.
	o.testArgs = []string{"-test.v=test2json", "-test.timeout=" + o.timeout.String()}
	if test != "" {
		o.testArgs = append(o.testArgs, "-test.run="+test)
	}
	if repeat != 1 {
		o.testArgs = append(o.testArgs, fmt.Sprintf("-test.count=%d", repeat))
	}
	if short {
		o.testArgs = append(o.testArgs, "-test.short")
	}
	return o, nil
}

// setKVM fills in what a guest needs that boots guests itself.
func (o *options) setKVM(test *string) {
	o.with = strings.TrimSpace(o.with + " qemu-system-x86")
	o.tags += ",kvm"
	if *test == "" {
		*test = "^TestKVM"
	}
	if len(o.packages) == 0 {
		o.packages = []string{"./internal/qemu", "./tests/kvm"}
	}
}

func main() {
	// QEMU is told to die with the thread that started it.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	ok, err := run(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "guest: %v\n", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

// run does everything; it reports whether all tests passed.
func run(ctx context.Context, o options, out io.Writer) (ok bool, err error) {
	phases := newPhases(out)
	image, err := prepareImage(ctx, o)
	if err != nil {
		return false, err
	}
	phases.done("image " + filepath.Base(image))
	if o.kvm {
		// The guest's guests boot its own kernel, whose modules it has.
		o.copies = append(o.copies, filepath.Join(image, "vmlinux")+":kernels/debian")
	}

	dir, err := os.MkdirTemp(filepath.Dir(image), "run.")
	if err != nil {
		return false, err
	}
	defer func() {
		if o.keep || err != nil {
			fmt.Fprintf(out, "guest: kept %s\n", dir)
			return
		}
		os.RemoveAll(dir)
	}()

	jobs, failed, err := layOut(ctx, o, filepath.Join(dir, "tree"), out)
	if err != nil {
		return false, err
	}
	disk := filepath.Join(dir, "jobs.ext4")
	if err := makeDisk(ctx, filepath.Join(dir, "tree"), disk); err != nil {
		return false, err
	}
	phases.done(fmt.Sprintf("job disk, %d packages compiled", len(jobs)))

	excuses, err := readExcuses("tests/guest/skips")
	if err != nil {
		return false, err
	}
	m := machine{options: o, image: image, dir: dir, disk: disk}
	if o.shell {
		return true, m.interact(ctx)
	}
	total := count{failed: failed}
	s := stream{out: out, options: o, total: &total, jobs: jobs, phases: phases, excuses: excuses}
	if err := m.follow(ctx, &s); err != nil {
		total.failed++
		tail(out, filepath.Join(dir, "console.log"), 40)
		fmt.Fprintln(out, total)
		return false, err
	}
	phases.done("guest")
	if o.results != "" {
		if err := copyResults(ctx, disk, o.results); err != nil {
			return false, err
		}
	}
	if o.script != "" {
		return s.status == 0 && failed == 0, nil
	}
	fmt.Fprintln(out, total)
	return total.failed == 0, nil
}

// phases prints how long each phase took.
type phases struct {
	out  io.Writer
	last time.Time
}

func newPhases(out io.Writer) *phases { return &phases{out: out, last: time.Now()} }

func (p *phases) done(what string) {
	fmt.Fprintf(p.out, "guest: %s (%.1fs)\n", what, time.Since(p.last).Seconds())
	p.last = time.Now()
}
