// Package compare runs `bulkhead compare` and changes what it measures: a cell that
// does not follow is no measurement.
package compare

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/tests/programs"
)

// bin is the directory of the programs.
var bin string

// The bridge network is made in a network namespace that has nothing but loopback.
func TestMain(m *testing.M) {
	flag.Parse()
	nettest.Isolate(func() {
		if !testing.Short() {
			vmtest.Fetch() // TestOtherKernels boots machines
		}
	})
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "comparetest")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	if bin, err = programs.Find(dir); err != nil {
		fmt.Println(err)
		return 1
	}
	return m.Run()
}

// world is a state root with the image "box", which has busybox.
type world struct {
	*testing.T
	root string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "cmp") // socket paths end at 107 bytes (unix(7))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}, Wait: 10 * time.Second})
	w := &world{T: t, root: filepath.Join(dir, "r")}
	files := filepath.Join(dir, "image")
	for _, d := range []string{"bin", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(files, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(files, "etc/os-release"), []byte("PRETTY_NAME=\"Box 7\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	busybox, err := os.ReadFile("/bin/busybox") // Debian's package busybox-static
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("busybox", filepath.Join(files, "bin/sh")); err != nil {
		t.Fatal(err)
	}
	tarball := filepath.Join(dir, "image.tar")
	if out, err := exec.Command("tar", "-C", files, "-cf", tarball, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.must("import", "--change", "ENV PATH=/bin", tarball, "box")
	t.Cleanup(func() {
		w.nothingLeft()
		w.must("network", "prune", "-f")
		programs.RemoveCgroups()
	})
	return w
}

// nothingLeft checks that the comparison's workloads, images and directories are
// gone.
func (w *world) nothingLeft() {
	w.Helper()
	if left := strings.TrimSpace(w.must("ps", "-a", "--format", "{{.Names}}")); left != "" {
		w.Errorf("workloads are left: %s", left)
	}
	if got := strings.TrimSpace(w.must("images", "--format", "{{.Repository}}")); got != "box" {
		w.Errorf("images are left: %q", got)
	}
	if dirs := w.directories(); len(dirs) > 0 {
		w.Errorf("directories are left: %q", dirs)
	}
}

// directories are those of comparisons.
func (w *world) directories() []string {
	w.Helper()
	all, err := filepath.Glob(filepath.Join(w.root, "scratch/compare/*"))
	if err != nil {
		w.Fatal(err)
	}
	return all
}

func (w *world) cmd(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "bulkhead"), args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_ROOT="+w.root)
	return cmd
}

func (w *world) run(args ...string) (stdout, stderr string, code int) {
	w.Helper()
	var out, errs bytes.Buffer
	cmd := w.cmd(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (w *world) must(args ...string) string {
	w.Helper()
	out, errs, code := w.run(args...)
	if code != 0 {
		w.Fatalf("bulkhead %s: exit code %d\n%s", strings.Join(args, " "), code, errs)
	}
	return out
}

// compare measures and returns the reports by their labels.
func (w *world) compare(args ...string) map[string]*report.Report {
	w.Helper()
	out, errs, code := w.run(append([]string{"compare", "--json", "--no-cold", "--rounds", "2", "--density", "2"}, args...)...)
	if code != 0 {
		w.Fatalf("compare %s: exit code %d\n%s\n%s", strings.Join(args, " "), code, errs, out)
	}
	d, err := report.Decode(strings.NewReader(out))
	if err != nil {
		w.Fatal(err)
	}
	all := map[string]*report.Report{}
	for i := range d.Reports {
		all[d.Reports[i].Subject.Label] = &d.Reports[i]
	}
	return all
}

// number is the median of a measure, which there must be.
func number(t *testing.T, r *report.Report, id string) float64 {
	t.Helper()
	m := r.Measure(id)
	if m == nil || !m.Measured() {
		t.Fatalf("%s: %s was not measured: %+v", r.Subject.Label, id, m)
	}
	return m.Median()
}

func text(t *testing.T, r *report.Report, id string) string {
	t.Helper()
	m := r.Measure(id)
	if m == nil || m.Text == "" {
		t.Fatalf("%s: %s is not known: %+v", r.Subject.Label, id, m)
	}
	return m.Text
}

// TestEveryCell measures everything for two ways that every machine has: each cell
// has a value, or a reason that is true of that way.
func TestEveryCell(t *testing.T) {
	w := newWorld(t)
	page := filepath.Join(t.TempDir(), "page.html")
	all := w.compare("--only", "none,container", "--html", page, "box")
	if html, err := os.ReadFile(page); err != nil || !bytes.Contains(html, []byte("container")) || !bytes.HasSuffix(bytes.TrimSpace(html), []byte("</html>")) {
		t.Errorf("the page is %d bytes: %v", len(html), err)
	}
	reasons := map[string]string{ // what neither has
		"image.kernel": "it brings no kernel", "guest.memory": "its kernel is the host's",
	}
	var host syscall.Utsname
	if err := syscall.Uname(&host); err != nil {
		t.Fatal(err)
	}
	release := make([]byte, 0, len(host.Release))
	for _, c := range host.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	for _, label := range []string{"none", "container"} {
		r := all[label]
		if r == nil {
			t.Fatalf("there is no %s", label)
		}
		if len(r.Measures) < 28 {
			t.Errorf("%s has only %d measures", label, len(r.Measures))
		}
		for i := range r.Measures {
			m := &r.Measures[i]
			if why, ok := reasons[m.ID]; ok {
				if m.Reason != why {
					t.Errorf("%s: %s: %+v, want the reason %q", label, m.ID, m, why)
				}
			} else if m.Reason != "" {
				t.Errorf("%s: %s was not measured: %s", label, m.ID, m.Reason)
			}
		}
		if got, want := text(t, r, "kernel.name"), "Linux "+string(release); got != want || text(t, r, "kernel.shared") != "yes" {
			t.Errorf("%s: kernel %q, the host's: %s, want %q, yes", label, got, text(t, r, "kernel.shared"), want)
		}
		if got := text(t, r, "system.name"); got != "Box 7" {
			t.Errorf("%s: operating system %q", label, got)
		}
		if n := len(r.Measure("start.exit").Samples); n != 2 {
			t.Errorf("%s: %d starts were measured, want 2", label, n)
		}
		if got := number(t, r, "density.idle"); got != 2 {
			t.Errorf("%s: %v idle at once, want 2", label, got)
		}
		if len(r.Findings) == 0 {
			t.Errorf("%s: the prober has not looked", label)
		}
	}
	none, container := all["none"], all["container"]
	if open := none.Count(report.Leaked); open < 30 {
		t.Errorf("without a boundary only %d doors are open", open)
	}
	if open := container.Count(report.Leaked) + container.Count(report.Weaker); open > 0 {
		t.Errorf("%d doors of a container are open", open)
	}
	// From a chroot there would be none.
	if !slices.Contains(none.Measure("compat.features").Parts, report.Fact{Name: "user namespaces", Value: "works"}) {
		t.Errorf("without a boundary there are no user namespaces: %v", none.Measure("compat.features").Parts)
	}
	if a, b := number(t, none, "compat.features"), number(t, container, "compat.features"); a <= b {
		t.Errorf("%v features work without a boundary, %v in a container", a, b)
	}
	var beside []string
	for _, f := range container.Measure("memory.beside").Parts {
		beside = append(beside, f.Name)
	}
	if slices.Sort(beside); !slices.Equal(beside, []string{"bulkhead-supervisor", "meter"}) {
		t.Errorf("the memory of a container is that of %q", beside)
	}
	if got := text(t, container, "isolation.mechanism"); !strings.Contains(got, "seccomp") || !strings.Contains(got, "namespaces") {
		t.Errorf("a container is isolated by %q", got)
	}
}

// TestCellsFollow changes what is measured, and looks at the cell.
func TestCellsFollow(t *testing.T) {
	w := newWorld(t)
	quick := w.compare("--only", "container", "--measure", "start,inside,doors", "box")["container"]
	slow := w.compare("--only", "container", "--measure", "start,inside,doors", "--security-opt", "seccomp=unconfined", "--pid", "host",
		"box", "sh", "-c", "busybox sleep 0.3; echo done; busybox sleep 0.3")["container"]
	if a, b := number(t, quick, "compat.features"), number(t, slow, "compat.features"); a >= b {
		t.Errorf("%v features work, %v without a filter", a, b)
	}
	a, b := text(t, quick, "isolation.mechanism"), text(t, slow, "isolation.mechanism")
	if !strings.Contains(a, "seccomp") || strings.Contains(b, "seccomp") || strings.Contains(b, "8 namespaces") {
		t.Errorf("the mechanism is %q, and %q without a filter and a namespace", a, b)
	}
	if a, b := quick.Count(report.Leaked), slow.Count(report.Leaked); a != 0 || b == 0 {
		t.Errorf("%d doors are open, %d with the host's processes", a, b)
	}
	if got := slow.Subject.Command; got != "--pid host --security-opt seccomp=unconfined" {
		t.Errorf("the flags are told as %q", got)
	}
	// A sleep takes at least its time.
	if first, end := number(t, slow, "start.output"), number(t, slow, "start.exit"); first < 0.3 || end < first+0.3 {
		t.Errorf("output after %v s, the end after %v s", first, end)
	}
	// And what does not write has no first output, which is no failure.
	mute := w.compare("--only", "container", "--measure", "start", "box", "busybox", "true")["container"]
	if m := mute.Measure("start.output"); m.Measured() || m.Reason != "the program prints nothing" || !mute.Measure("start.exit").Measured() {
		t.Errorf("a mute program: %+v", m)
	}
}

// TestNeighbours: every cell has what its neighbour did; and on one processor one that
// computes takes from the victim what one that sleeps leaves it, as far as a machine with
// nothing else to do can tell in so short a time: that is looked at in the slow tier.
func TestNeighbours(t *testing.T) {
	w := newWorld(t)
	ways := "container"
	if !testing.Short() { // a way takes half a minute
		ways = "none,container"
	}
	all := w.compare("--only", ways, "--measure", "neighbours", "--beside", "50ms", "--cpuset-cpus", "0", "box")
	container := all["container"]
	for i := range container.Measures {
		m := &container.Measures[i]
		if group := m.Group(); !strings.HasPrefix(group, "limited-") && !strings.HasPrefix(group, "unlimited-") {
			continue
		}
		if m.Reason != "" || strings.Contains(m.Note, "failed") {
			t.Errorf("%s: %s%s", m.ID, m.Reason, m.Note)
			continue
		}
		distinct := slices.Compact(slices.Sorted(slices.Values(m.Samples)))
		if len(m.Samples) != 6 || len(distinct) < 2 {
			t.Errorf("%s: the samples are %v", m.ID, m.Samples)
		}
		if len(m.Parts) != 1 || !strings.Contains(m.Parts[0].Value, "/s") || strings.Contains(m.Parts[0].Value, ": 0/s") {
			t.Errorf("%s: the neighbour's work is %q", m.ID, m.Parts)
		}
	}
	if idle, cpu := number(t, container, "unlimited-rate.idle"), number(t, container, "unlimited-rate.cpu"); cpu >= idle && !testing.Short() {
		t.Errorf("beside one that computes there are %.2f times as many requests as alone, beside one that sleeps %.2f", cpu, idle)
	}
	if refused := container.Measure("limited-rate.forks").Parts[0].Value; !strings.Contains(refused, "refused") {
		t.Errorf("a limit of processes does not limit: %s", refused)
	}
	// What is not limited says so, and what can be measured is.
	if none := all["none"]; none != nil {
		if m := none.Measure("limited-p50.cpu"); m.Measured() || !strings.Contains(m.Reason, "nothing limits") {
			t.Errorf("without a boundary, with limits: %+v", m)
		}
		number(t, none, "unlimited-p99.dirty")
	}
}

// TestOtherKernels looks at ways that bring a kernel of their own.
func TestOtherKernels(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines under emulation")
	}
	w := newWorld(t)
	vmtest.Machine(t)
	cache, err := vmtest.Cache()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(cache, "kernels"), filepath.Join(w.root, "kernels")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all := w.compare("--only", "container,vm,tenant", "--measure", "start,memory,doors", "box")
	for _, label := range []string{"vm", "tenant"} {
		r := all[label]
		if own := text(t, r, "kernel.shared"); own != "no" || text(t, r, "kernel.name") == text(t, all["container"], "kernel.name") {
			t.Errorf("%s: kernel %s, the host's: %s", label, text(t, r, "kernel.name"), own)
		}
		if got := text(t, r, "isolation.mechanism"); !strings.Contains(got, "virtual machine") {
			t.Errorf("%s is isolated by %q", label, got)
		}
		if n := number(t, r, "guest.memory"); n < 10<<20 {
			t.Errorf("%s: the guest uses %v bytes", label, n)
		}
		if n := number(t, r, "image.kernel"); n < 1<<20 {
			t.Errorf("%s: its kernel has %v bytes", label, n)
		}
		if len(r.Findings) == 0 || r.Count(report.Leaked)+r.Count(report.Weaker) != 0 {
			t.Errorf("%s: %d doors, %d open", label, len(r.Findings), r.Count(report.Leaked)+r.Count(report.Weaker))
		}
	}
	// What a tenant's workload adds is little; the machine is shared.
	vm, tenant := all["vm"], all["tenant"]
	if a, b := number(t, vm, "memory.beside"), number(t, tenant, "memory.beside"); b >= a {
		t.Errorf("a machine takes %v bytes, one more workload in a tenant's %v", a, b)
	}
	if n := number(t, tenant, "memory.daemons"); n < 10<<20 {
		t.Errorf("the tenant's machine has %v bytes", n)
	}
}

// TestUntrusted: the image's program runs without a boundary only if it may.
func TestUntrusted(t *testing.T) {
	w := newWorld(t)
	touched := filepath.Join(t.TempDir(), "touched")
	args := []string{"--only", "none", "--measure", "start"}
	// It has the host's /proc, and by that the host's files: no boundary.
	program := []string{"box", "sh", "-c", fmt.Sprintf("echo > /proc/%d/root%s; echo x", os.Getpid(), touched)}
	r := w.compare(append(args, program...)...)["none"]
	if m := r.Measure("start.exit"); m.Measured() || !strings.Contains(m.Reason, "--trust-image") {
		t.Errorf("start: %+v", m)
	}
	if _, err := os.Stat(touched); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the image's program ran on the host: %v", err)
	}
	r = w.compare(append(append(args, "--trust-image"), program...)...)["none"]
	number(t, r, "start.exit")
	if _, err := os.Stat(touched); err != nil {
		t.Errorf("the program that may has not run on the host: %v", err)
	}
}

// TestRuntimeIsNotTrusted: what a runtime runs may replace the programs that measure
// there, and not those that run without a boundary.
func TestRuntimeIsNotTrusted(t *testing.T) {
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("needs runc")
	}
	w := newWorld(t)
	touched := filepath.Join(t.TempDir(), "touched")
	meter := "/.bulkhead-compare/meter"
	evil := fmt.Sprintf(`printf '#!/bin/sh\necho > /proc/%d/root%s\n' > %s; busybox cat %s`, os.Getpid(), touched, meter, meter)
	out, errs, code := w.run("compare", "--json", "--no-cold", "--rounds", "1", "--only", "none,runc", "--measure", "start", "box", "sh", "-c", evil)
	d, err := report.Decode(strings.NewReader(out))
	if err != nil || code != 3 {
		t.Fatalf("exit code %d: %v\n%s%s", code, err, errs, out)
	}
	for i := range d.Reports {
		switch r := &d.Reports[i]; r.Subject.Label {
		case "none":
			text(t, r, "kernel.name")
		case "runc":
			number(t, r, "start.exit")
			if m := r.Measure("kernel.name"); m.Text != "" {
				t.Error("the program that measures was not replaced: the test shows nothing")
			}
		}
	}
	if _, err := os.Stat(touched); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program of a runtime's container ran on the host: %v", err)
	}
}

// TestFailures: what cannot be measured is told, with the exit code for it.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no such program", []string{"--only", "container", "--measure", "start", "box", "no-such-program"}, 3, "no-such-program"},
		{"a program that fails", []string{"--only", "container", "--measure", "start", "box", "busybox", "false"}, 3, "exit status 1"},
		{"an unknown way", []string{"--only", "chroot", "box"}, 4, "no way to run an image"},
		{"an unknown group", []string{"--measure", "speed", "box"}, 4, "unknown group"},
		{"no rounds", []string{"--rounds", "0", "box"}, 4, "out of range"},
		{"no time beside", []string{"--beside", "0s", "box"}, 4, "out of range"},
		{"too many at once", []string{"--density", "5001", "box"}, 4, "out of range"},
		{"a flag that is not its own", []string{"--boundary", "vm", "box"}, 4, "--boundary"},
		{"no way left", []string{"--only", "none", "--without", "none", "box"}, 4, "no way"},
		{"an option that the way does not have", []string{"--only", "container", "--cap-add", "NONSENSE", "box"}, 4, "NONSENSE"},
	} {
		out, errs, code := w.run(append([]string{"compare", "--no-cold", "--rounds", "1"}, tt.args...)...)
		if code != tt.code || !strings.Contains(out+errs, tt.want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s%s", tt.name, code, tt.code, tt.want, out, errs)
		}
		w.nothingLeft()
	}
}

// TestInterrupted ends a comparison in the midst of it, politely and not. What the
// latter leaves, the next comparison removes.
func TestInterrupted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			w := newWorld(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := w.cmd("compare", "--no-cold", "--density", "1000", "--measure", "density", "--only", "container", "box")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for len(strings.Fields(w.must("ps", "-q"))) < 3 {
				if ctx.Err() != nil {
					cmd.Process.Kill()
					_ = cmd.Wait()
					t.Fatal("no three workloads within a minute")
				}
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if sig == syscall.SIGKILL {
				if len(strings.Fields(w.must("ps", "-aq"))) < 3 || len(w.directories()) != 1 {
					t.Error("nothing was left: the test shows nothing")
				}
				w.compare("--only", "container", "--measure", "start", "box")
			} else if err == nil || cmd.ProcessState.ExitCode() != 128+int(sig) {
				t.Errorf("interrupted it ended with %v", err)
			}
			w.nothingLeft()
		})
	}
}

// TestPlanted: what others put where everybody can write is not executed, and what
// others run is not removed, whatever it is called.
func TestPlanted(t *testing.T) {
	w := newWorld(t)
	bin := t.TempDir()
	log := filepath.Join(bin, "log")
	for name, script := range map[string]string{
		"evil": `echo evil "$@" >> ` + log,
		// An engine with a workload whose name is like one of ours.
		"docker": `echo docker "$@" >> ` + log + `
case "$*" in
ps*label=*) ;;
ps*) echo compare-4194305-db-1 ;;
images*) echo localhost/bulkhead-compare:compare-4194305-0123 ;;
run*) echo hello ;;
esac`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// No process has this number: it is above the greatest (/proc/sys/kernel/pid_max).
	planted := "/var/tmp/bulkhead-compare.4194305." + filepath.Base(w.root)
	t.Cleanup(func() { os.RemoveAll(planted) })
	if err := os.MkdirAll(filepath.Join(planted, "evil/state/x"), 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := w.cmd("compare", "--no-cold", "--rounds", "1", "--measure", "start", "--only", "container,docker", "box")
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	b, _ := os.ReadFile(log)
	if !strings.Contains(string(b), "docker run") {
		t.Errorf("the engine was not asked: the test shows nothing: %v\n%s", err, out)
	}
	for _, bad := range []string{"evil", "db-1", "compare-4194305-0123"} {
		if strings.Contains(string(b), bad) {
			t.Errorf("%s was touched:\n%s", bad, b)
		}
	}
	if _, err := os.Stat(planted); err != nil {
		t.Error(err)
	}
}

// TestLeftBehind: what a program without a boundary leaves in the background is
// not waited for, and not left.
func TestLeftBehind(t *testing.T) {
	w := newWorld(t)
	begin := time.Now()
	r := w.compare("--only", "none", "--measure", "start", "--trust-image", "box", "sh", "-c", "busybox setsid busybox sleep 4321 & echo x")["none"]
	if n := number(t, r, "start.exit"); n > 10 || time.Since(begin) > 2*time.Minute {
		t.Errorf("the start took %v s, and all %v", n, time.Since(begin))
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if b, err := os.ReadFile(file); err == nil && bytes.Contains(b, []byte("sleep\x004321")) {
			t.Errorf("%s is left", file)
		}
	}
}

// TestStubborn: a COMMAND that ignores that it is to end does not outlive the
// comparison that was interrupted while it ran.
func TestStubborn(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := w.cmd("compare", "--no-cold", "--measure", "start", "--only", "container", "box", "sh", "-c", "trap '' TERM INT; while :; do busybox sleep 0.1; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(w.must("ps", "--filter", "label=bulkhead.compare", "--format", "{{.Command}}"), "trap") {
		if ctx.Err() != nil {
			cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatal("the program did not start within a minute")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 128+int(syscall.SIGINT) {
		t.Errorf("interrupted it ended with %v", err)
	}
	w.nothingLeft()
}
