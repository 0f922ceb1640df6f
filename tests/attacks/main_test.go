package attacks

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/idrange"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// testCgroup is above the cgroups of this package's tests.
const testCgroup = "/bulkhead-attacks-test"

// work is the directory of this run: base/ is the layer that all containers
// have, bin/ our programs.
var work string

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "inside" {
		os.Exit(insideMain(os.Args[1:]))
	}
	nettest.Isolate()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test skips
	}
	var err error
	if work, err = os.MkdirTemp("", "attacks"); err == nil {
		defer os.RemoveAll(work)
		err = os.Chmod(work, 0o755)
	}
	if err == nil {
		err = makeBase(filepath.Join(work, "base"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { // empty by now; removing fails otherwise
		for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			dirs, _ := filepath.Glob(pattern + testCgroup)
			for _, d := range dirs {
				os.Remove(d)
			}
		}
	}()
	return m.Run()
}

// makeBase makes the layer that all containers share.
func makeBase(dir string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("needs busybox (Debian package busybox-static): %w", err)
	}
	for _, d := range []string{"", "bin", "etc", "root", "tmp", "usr", "home", "home/user"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
		"etc/group":  "root:x:0:\nuser:x:1000:\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := copyFile(busybox, filepath.Join(dir, "bin/busybox"), 0o755); err != nil {
		return err
	}
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return err
	}
	for _, applet := range strings.Fields(string(out)) {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil && applet != "busybox" {
			return err
		}
	}
	return makeInside(filepath.Join(dir, "bin/inside"))
}

// makeInside puts this test program into a layer. It must be static there: one
// that is linked with the C library, for the race detector, is made again.
func makeInside(to string) error {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		cmd := exec.Command("go", "test", "-c", "-o", to, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build the attacker: %w: %s", err, out)
		}
		return nil
	}
	return copyFile("/proc/self/exe", to, 0o755)
}

func copyFile(from, to string, mode fs.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, mode)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// target is a container that is to be attacked or attacks.
type target struct {
	spec  workload.Spec
	prep  boundary.Prepared
	inst  boundary.Instance
	out   *output
	layer string // of its own, above the base
}

// output collects what a process writes.
type output struct {
	w    *os.File
	done chan struct{}
	mu   sync.Mutex
	buf  bytes.Buffer
}

// Write appends what arrived.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

// contains reports whether s was written until now.
func (o *output) contains(s string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Contains(o.buf.Bytes(), []byte(s))
}

// newOutput returns a pipe whose reading end is read.
func newOutput(t testing.TB) *output {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o := &output{w: w, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer r.Close()
		io.Copy(o, r)
	}()
	return o
}

// started closes our copy of the writing end.
func (o *output) started() { o.w.Close() }

// text waits for the end of the writers. One that lives longer than the
// deadline fails the test.
func (o *output) text(t testing.TB) string {
	t.Helper()
	select {
	case <-o.done:
		return o.buf.String()
	case <-time.After(limit):
		t.Fatal("the output does not end")
		return ""
	}
}

// limit is how long anything may take: what is longer is a hang.
const limit = 30 * time.Second

// newTarget prepares a container with the default confinement that runs args.
func newTarget(t testing.TB, args ...string) *target {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp(work, "container")
	if err != nil {
		t.Fatal(err)
	}
	id := workload.NewID()
	tg := &target{
		spec: workload.Spec{ID: id, Boundary: "container", Network: "none", Hostname: "cell",
			Process: workload.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}},
		layer: filepath.Join(dir, "layer"),
	}
	tg.prep = boundary.Prepared{
		Dir: filepath.Join(dir, "run"), Layers: []string{filepath.Join(work, "base"), tg.layer},
		Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Cgroup: testCgroup + "/" + string(id),
	}
	for _, d := range []string{tg.layer, tg.prep.Dir, tg.prep.Upper, tg.prep.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return tg
}

// hostUser leaves the container in the host's user namespace.
func (tg *target) hostUser() { tg.spec.Namespaces.HostUser = true }

// all gives it every capability.
func (tg *target) all() { tg.spec.Security.CapAdd = []string{"ALL"} }

// create makes the container.
func (tg *target) create(t testing.TB) error {
	t.Helper()
	if !tg.spec.Namespaces.HostUser {
		r, err := idrange.Open(t.TempDir(), "/etc").Peek()
		if err != nil {
			t.Fatal(err)
		}
		tg.prep.IDBase, tg.prep.IDCount = r.Base, r.Count
		for _, d := range []string{tg.prep.Upper, tg.prep.Work} {
			if err := os.Chown(d, int(r.Base), int(r.Base)); err != nil {
				t.Fatal(err)
			}
		}
	}
	tg.out = newOutput(t)
	defer tg.out.started()
	if !tg.spec.Process.Terminal {
		tg.prep.Stdio.Out, tg.prep.Stdio.Err = tg.out.w, tg.out.w
	}
	inst, err := container.Boundary{}.Create(t.Context(), tg.spec, tg.prep)
	if err != nil {
		return err
	}
	tg.inst = inst
	t.Cleanup(func() {
		if err := inst.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return nil
}

// start creates and starts the container.
func (tg *target) start(t testing.TB) error {
	t.Helper()
	if err := tg.create(t); err != nil {
		return err
	}
	return tg.inst.Start(t.Context())
}

// mustStart fails the test where start fails.
func (tg *target) mustStart(t testing.TB) {
	t.Helper()
	if err := tg.start(t); err != nil {
		t.Fatal(err)
	}
}

// run starts the container and returns its output once it has ended.
func (tg *target) run(t testing.TB) string {
	t.Helper()
	tg.mustStart(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := tg.inst.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return tg.out.text(t)
}

// exec runs another process and returns its output.
func (tg *target) exec(t testing.TB, change func(*workload.Process), args ...string) (string, error) {
	t.Helper()
	p := workload.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}
	if change != nil {
		change(&p)
	}
	out := newOutput(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	proc, err := tg.inst.Exec(ctx, p, boundary.Stdio{Out: out.w, Err: out.w})
	out.started()
	if err != nil {
		return "", err
	}
	if _, err := proc.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return out.text(t), nil
}

// write puts a file into the container's own layer.
func (tg *target) write(t testing.TB, name, text string, mode fs.FileMode) {
	t.Helper()
	path := filepath.Join(tg.layer, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// link puts a symbolic link into the container's own layer.
func (tg *target) link(t testing.TB, to, name string) {
	t.Helper()
	path := filepath.Join(tg.layer, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// guardLeaks fails the test when it leaves something behind.
func guardLeaks(t testing.TB) {
	t.Helper()
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}, Paths: []string{work}})
}

// lines returns s by lines, as a map from the first word to the rest.
func lines(s string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(s) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[name] = rest
	}
	return m
}
