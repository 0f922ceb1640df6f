package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/guesttest"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// callLimit bounds one call to an emulated guest.
const callLimit = time.Minute

// guest is a booted guest with this command as its init.
type guest struct {
	machine *guesttest.Machine
	session *protocol.Session
	*client.Client
}

// boot starts a guest whose image is a tree with busybox and the suite's
// program.
func boot(t *testing.T, machine string) *guest {
	g := &guest{machine: guesttest.Start(t, guesttest.Config{
		Type: machine, CPUs: 2, Memory: 512, Init: guesttest.Build(t, "cmd/bulkhead-agent"),
		Disks: map[string]string{"image0": guesttest.Erofs(t, tree(t)), "data": guesttest.Ext4(t, 256)},
	})}
	g.greet(t)
	return g
}

// greet begins a session.
func (g *guest) greet(t *testing.T) {
	conn := g.machine.Dial()
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := protocol.Host(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	g.session, g.Client = s, client.OverSession(s)
}

// tree makes a root file system.
func tree(t *testing.T) string {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static: ", err)
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "vol", "scratch"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "bin/busybox"), b, 0o755), os.Symlink("busybox", filepath.Join(dir, "bin/sh")),
		os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0::/:/bin/sh\n"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	boundarytest.BuildProgram(t, filepath.Join(dir, "bin/program"))
	return dir
}

// powerOff ends the guest and expects QEMU to end.
func (g *guest) powerOff(t *testing.T) {
	t.Helper()
	if err := g.PowerOff(limited(t)); err != nil {
		t.Error(err)
	}
	g.machine.AwaitEnd()
	if console := g.machine.Console(); strings.Contains(console, "bulkhead-agent:") {
		t.Errorf("complaints on the console:\n%s", console)
	}
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	t.Cleanup(cancel)
	return ctx
}

// remote is the boundary that the suite judges: the guest's containers.
type remote struct{ g *guest }

func (remote) Name() string                       { return "vm" }
func (remote) Check(context.Context) error        { return nil }
func (remote) Needs(workload.Spec) boundary.Needs { return boundary.Needs{Root: boundary.Disk} }

func (r remote) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	return r.g.create(ctx, s, p.Stdio)
}

func (r remote) Open(_ context.Context, id workload.ID, _ string) (boundary.Instance, error) {
	return r.g.Open(id), nil
}

func (g *guest) create(ctx context.Context, s workload.Spec, stdio boundary.Stdio) (boundary.Instance, error) {
	in, err := g.Create(ctx, protocol.Create{Spec: s, Image: "image0", IDBase: 1 << 20, IDCount: 1 << 16}, stdio, nil)
	if err != nil {
		return nil, err // not an *Instance that is nil
	}
	return in, nil
}

// TestConformance runs the suite that every boundary must pass against the
// containers in a guest.
func TestConformance(t *testing.T) {
	g := boot(t, "q35")
	boundarytest.Run(t, boundarytest.Harness{
		Boundary: remote{g: g}, Program: "/bin/program", NotExecutable: "/etc/passwd",
		Prepare: func(t testing.TB, s workload.Spec) boundary.Prepared {
			// Its end is the suite's to see; what it wrote is ours.
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), callLimit)
				defer cancel()
				if err := errors.Join(g.Delete(ctx, s.ID), g.RemoveData(ctx, s.ID)); err != nil {
					t.Error(err)
				}
			})
			return boundary.Prepared{Dir: t.TempDir()}
		},
		Lacks: map[boundarytest.Ability]string{
			boundarytest.Mounts:      "a bind mount needs the host's file server",
			boundarytest.Networks:    "the test's QEMU has no network devices",
			boundarytest.CreatorDies: "the port has one user; the tests of package agent have the relay",
		},
	})
	status, err := g.Status(limited(t))
	if err != nil || len(status.Workloads) != 0 {
		t.Errorf("left in the guest: %+v, %v", status, err)
	}
	g.powerOff(t)
}

// running is a workload whose output is kept.
type running struct {
	boundary.Instance
	t   *testing.T
	out *output
}

// output collects what is written to a pipe.
type output struct {
	write *os.File
	done  chan struct{}
	b     bytes.Buffer
}

func newOutput(t *testing.T) *output {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o := &output{write: w, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer r.Close()
		io.Copy(&o.b, r)
	}()
	return o
}

func (o *output) String() string {
	o.write.Close()
	<-o.done
	return o.b.String()
}

func process(script string) workload.Process {
	return workload.Process{Args: []string{"/bin/busybox", "sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}}
}

// start runs a shell script as a workload.
func (g *guest) start(t *testing.T, script string, change func(*workload.Spec)) *running {
	t.Helper()
	s := workload.Spec{ID: workload.NewID(), Name: "test", Boundary: "vm", Process: process(script), Network: "none"}
	if change != nil {
		change(&s)
	}
	r := &running{t: t, out: newOutput(t)}
	var err error
	if r.Instance, err = g.create(limited(t), s, boundary.Stdio{Out: r.out.write, Err: r.out.write}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), callLimit)
		defer cancel()
		if err := errors.Join(r.Delete(ctx), g.RemoveData(ctx, s.ID)); err != nil {
			t.Error(err)
		}
	})
	if err := r.Start(limited(t)); err != nil {
		t.Fatal(err)
	}
	return r
}

// end waits for the workload and returns what it printed.
func (r *running) end() (string, workload.Exit) {
	r.t.Helper()
	exit, err := r.Wait(limited(r.t))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.out.String(), exit
}

// exec runs a script in the workload and returns what it printed.
func (r *running) exec(script string) string {
	r.t.Helper()
	out := newOutput(r.t)
	p, err := r.Exec(limited(r.t), process(script), boundary.Stdio{Out: out.write, Err: out.write})
	if err != nil {
		r.t.Fatal(err)
	}
	if exit, err := p.Wait(limited(r.t)); err != nil || exit.Code != 0 {
		r.t.Errorf("exec %q: %+v, %v", script, exit, err)
	}
	return out.String()
}

// TestWorkloads boots guests and looks at workloads from inside.
func TestWorkloads(t *testing.T) {
	for _, machine := range []string{"q35", "microvm"} {
		t.Run(machine, func(t *testing.T) {
			g := boot(t, machine)
			t.Run("confined", func(t *testing.T) { testConfined(t, g) })
			t.Run("two", func(t *testing.T) { testTwo(t, g) })
			t.Run("memory", func(t *testing.T) { testMemory(t, g) })
			t.Run("pids", func(t *testing.T) { testPids(t, g) })
			t.Run("clock and seed", func(t *testing.T) { testClock(t, g) })
			g.powerOff(t)
		})
	}
}

func testConfined(t *testing.T, g *guest) {
	out, exit := g.start(t, `
		busybox cat /proc/1/cgroup /proc/self/uid_map
		busybox grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status
		busybox cat /proc/self/oom_score_adj
		busybox grep " / " /proc/self/mountinfo
		busybox mount -t tmpfs x /tmp || echo no mount
		busybox ls /sys/class/virtio-ports /dev/vport* 2>/dev/null
		busybox touch /written && echo written
		exit 3`, nil).end()
	if exit.Code != 3 {
		t.Errorf("exit %+v", exit)
	}
	for _, want := range []string{
		"0::/\n", "         0    1048576      65536\n", "Seccomp:\t2\n", "NoNewPrivs:\t1\n", "\n0\n", " - overlay ", "no mount\n", "written\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the workload's output lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "/dev/vport") || strings.Contains(out, "CapEff:\t000001ffffffffff") {
		t.Errorf("the workload is not confined:\n%s", out)
	}
}

// testTwo: workloads of one guest do not see each other.
func testTwo(t *testing.T, g *guest) {
	one := g.start(t, "echo one >/secret; while :; do busybox sleep 100; done", func(s *workload.Spec) { s.Hostname = "one" })
	two := g.start(t, "while :; do busybox sleep 100; done", func(s *workload.Spec) { s.Hostname = "two" })
	for name, r := range map[string]*running{"one": one, "two": two} {
		if got := r.exec("busybox hostname"); got != name+"\n" {
			t.Errorf("%s has the host name %q", name, got)
		}
		if got := strings.Count(r.exec("busybox ps -o args"), "sleep 100"); got > 2 { // the loop's text, and the sleep
			t.Errorf("%s sees %d of the sleeps", name, got)
		}
	}
	if got := two.exec("busybox ls /"); strings.Contains(got, "secret") {
		t.Errorf("two sees one's file: %s", got)
	}
	status, err := g.Status(limited(t))
	if err != nil || len(status.Workloads) != 2 {
		t.Errorf("status %+v, %v", status, err)
	}
	if err := one.Signal(limited(t), 9); err != nil {
		t.Error(err)
	}
	if _, exit := one.end(); exit.Code != 137 || exit.OOMKilled {
		t.Errorf("one ended with %+v", exit)
	}
	if got := two.exec("echo alive"); got != "alive\n" {
		t.Errorf("two says %q", got)
	}
}

func testMemory(t *testing.T, g *guest) {
	limit := int64(24 << 20)
	r := g.start(t, "exec busybox tail /dev/zero", func(s *workload.Spec) {
		s.Resources.Memory, s.Resources.MemorySwap = &limit, &limit
	})
	if out, exit := r.end(); exit.Code != 137 || !exit.OOMKilled {
		t.Errorf("a workload over its memory limit ended with %+v, printed %q", exit, out)
	}
}

func testPids(t *testing.T, g *guest) {
	limit := int64(5)
	out, _ := g.start(t, "for i in 1 2 3 4 5 6 7 8 9; do busybox sleep 5 & done; busybox true", func(s *workload.Spec) {
		s.Resources.Pids = &limit
	}).end()
	if !strings.Contains(out, "can't fork") {
		t.Errorf("ten processes under a limit of five: %q", out)
	}
}

func testClock(t *testing.T, g *guest) {
	want := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	if err := g.SetClock(limited(t), want); err != nil {
		t.Fatal(err)
	}
	if out, _ := g.start(t, "busybox date -u +%Y-%m-%d", nil).end(); out != "2031-02-03\n" {
		t.Errorf("the workload's date is %q", out)
	}
	if err := g.ShiftClock(limited(t), -24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Clock(limited(t)); err != nil || got.UTC().Format(time.DateOnly) != "2031-02-02" {
		t.Errorf("a day earlier it is %v, %v", got, err)
	}
	seed := make([]byte, 64)
	rand.Read(seed)
	if err := g.Reseed(limited(t), seed); err != nil {
		t.Error(err)
	}
	if err := g.Reseed(limited(t), seed[:8]); err == nil {
		t.Error("a seed of eight bytes was taken")
	}
}

// TestHostComesBack: the workloads of a session end with it, and the guest
// serves the next one.
func TestHostComesBack(t *testing.T) {
	g := boot(t, "q35")
	s := workload.Spec{ID: workload.NewID(), Name: "left", Boundary: "vm", Process: process("busybox sleep 1000"), Network: "none"}
	in, err := g.create(limited(t), s, boundary.Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Start(limited(t)); err != nil {
		t.Fatal(err)
	}
	g.session.Close()
	// The guest must see that the host is gone: package pid1 tells why.
	time.Sleep(2 * time.Second)
	g.greet(t)
	status, err := g.Status(limited(t))
	if err != nil || slices.ContainsFunc(status.Workloads, func(w protocol.Workload) bool { return w.ID == s.ID }) {
		t.Errorf("after the host came back: %+v, %v", status, err)
	}
	if err := g.RemoveData(limited(t), s.ID); err != nil {
		t.Error(err)
	}
	g.powerOff(t)
}
