package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/fake"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/supervisor"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/nettest"
	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The test binary is also the supervisor, and a command that can be killed.
const (
	envRole    = "ENGINE_TEST_ROLE"    // "supervisor" or "command"
	envReal    = "ENGINE_TEST_REAL"    // not empty: containers
	envTaps    = "ENGINE_TEST_TAPS"    // not empty: the fake takes interfaces as a machine does
	envHang    = "ENGINE_TEST_HANG"    // "pause", "resume" or "create": see hangingBoundary
	envWarm    = "ENGINE_TEST_WARM"    // not empty: the fake can be made before there is a workload
	envCgroup  = "ENGINE_TEST_CGROUP"  // see testCgroup
	envWorld   = "ENGINE_TEST_WORLD"   // of the fake boundary
	envCrash   = "ENGINE_TEST_CRASH"   // the step at which the role's process ends
	envTimer   = "ENGINE_TEST_TIMER"   // after which the supervisor ends
	envCrashed = "ENGINE_TEST_CRASHED" // a file to make then
	envSteps   = "ENGINE_TEST_STEPS"   // a file to list the steps in
	envCommand = "ENGINE_TEST_COMMAND" // JSON of command
)

func TestMain(m *testing.M) {
	if len(os.Args) > 4 && os.Args[1] == "--root" {
		if err := runNetworkProgram(os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	role := os.Getenv(envRole)
	if role == "" {
		nettest.Isolate()
		code := m.Run()
		// Empty by now; what is not, stays and was reported.
		for _, d := range append(cgroupDirs("/supervisors"), cgroupDirs("")...) {
			os.Remove(d)
		}
		os.Exit(code)
	}
	state.Step = func(name string) {
		name = role + ": " + name
		if path := os.Getenv(envSteps); path != "" {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err == nil {
				fmt.Fprintln(f, name)
				f.Close()
			}
		}
		if name == os.Getenv(envCrash) {
			os.WriteFile(os.Getenv(envCrashed), nil, 0o600)
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	volume.Step = state.Step
	if d, err := time.ParseDuration(os.Getenv(envTimer)); err == nil && role == "supervisor" {
		time.AfterFunc(d, func() { syscall.Kill(os.Getpid(), syscall.SIGKILL) })
	}
	if role == "supervisor" {
		os.Exit(supervisor.Main(testBoundary(os.Getenv(envWorld))))
	}
	os.Exit(runCommand())
}

// testBoundary is the fake, or the real one that envReal asks for.
func testBoundary(world string) boundary.Boundary {
	if os.Getenv(envReal) != "" {
		return container.Boundary{}
	}
	if os.Getenv(envTaps) != "" {
		return tapBoundary{&fake.Boundary{World: world}}
	}
	if os.Getenv(envHang) != "" {
		return hangingBoundary{&fake.Boundary{World: world}, os.Getenv(envHang)}
	}
	if os.Getenv(envWarm) != "" {
		return &warmBoundary{Boundary: &fake.Boundary{World: world}}
	}
	return &fake.Boundary{World: world}
}

// tapBoundary takes network interfaces as descriptors before it creates anything.
type tapBoundary struct{ *fake.Boundary }

func (b tapBoundary) Needs(s workload.Spec) boundary.Needs {
	n := b.Boundary.Needs(s)
	n.Network = boundary.Tap
	return n
}

// command is what a killable command does.
type command struct {
	Dir  string
	Op   string
	Ref  string
	Spec workload.Spec
}

func runCommand() int {
	var c command
	if err := json.Unmarshal([]byte(os.Getenv(envCommand)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	ctx := context.Background()
	e, err := Open(ctx, config(c.Dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	switch c.Op {
	case "create":
		_, err = e.Create(ctx, c.Spec)
	case "run":
		var s *Session
		if s, err = e.Run(ctx, c.Spec, &Streams{Out: os.Stdout, Err: os.Stderr}); err == nil {
			_, err = s.Wait(ctx)
		}
	case "run-detached":
		_, err = e.Run(ctx, c.Spec, nil)
	case "start":
		_, err = e.Start(ctx, c.Ref, nil)
	case "exec":
		var s *Session
		if s, err = e.Exec(ctx, c.Ref, process("echo", "executed"), &Streams{Out: os.Stdout}); err == nil {
			_, err = s.Wait(ctx)
		}
	case "stop":
		now := time.Duration(0)
		err = e.Stop(ctx, c.Ref, &now)
	case "rename":
		err = e.Rename(ctx, c.Ref, "renamed")
	case "rename-back":
		err = e.Rename(ctx, c.Ref, "victim")
	case "connect":
		err = e.Connect(ctx, c.Ref, workload.Attachment{Network: "side"})
	case "disconnect":
		err = e.Disconnect(ctx, c.Ref, "front", false)
	case "wait":
		_, err = e.wait(ctx, c.Ref, wire.UntilStopped)
	case "remove":
		err = e.Remove(ctx, c.Ref, true)
	case "warm":
		_, err = e.Warm(ctx, c.Spec, c.Ref, 1)
	case "copy":
		err = copyBothWays(ctx, e, c.Ref)
	case "remove-volumes":
		err = e.RemoveWith(ctx, c.Ref, RemoveOptions{Force: true, Volumes: true})
	}
	if err = errors.Join(err, e.Close()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// images is an ImageSource with one layer.
type images struct {
	dir string
	err error
}

func (i images) Layers(context.Context, workload.Image) (workload.Layers, func(), error) {
	return workload.Layers{Dirs: []string{i.dir}}, func() {}, i.err
}

// cgroupDirs finds what matches suffix below testCgroup, in every hierarchy:
// pure v2 is mounted where the others have their directories.
func cgroupDirs(suffix string) (found []string) {
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, _ := filepath.Glob(mount + testCgroup + suffix)
		found = append(found, dirs...)
	}
	return found
}

// testCgroup is above all cgroups of this test process: another may run at the
// same time. Its commands and supervisors are told.
var testCgroup = cmp.Or(os.Getenv(envCgroup), fmt.Sprintf("/bulkhead-engine-test-%d", os.Getpid()))

func config(dir string) Config {
	root, run, _ := RootsBelow(filepath.Join(dir, "root"))
	world := filepath.Join(dir, "world")
	env := []string{envRole + "=supervisor", envWorld + "=" + world, "GORACE=halt_on_error=1"}
	for _, name := range []string{envReal, envTaps, envHang, envWarm, envTimer, envCrash, envCrashed, envSteps} {
		env = append(env, name+"="+os.Getenv(name))
	}
	cfg := Config{
		Root: root, RunRoot: run,
		Supervisor: os.Args[0], SupervisorEnv: env,
		Boundaries:   []boundary.Boundary{testBoundary(world)},
		Images:       images{dir: filepath.Join(dir, "layer")},
		Networks:     fakeNetworks{world},
		CgroupParent: testCgroup,
	}
	if os.Getenv(envWarm) != "" {
		cfg.Machines = machines{dir}
	}
	return cfg
}

// world is one state root with an engine.
type world struct {
	*Engine
	t    *testing.T
	dir  string
	mu   sync.Mutex
	said []string
}

func newWorld(t *testing.T) *world { return newWorldIn(t, t.TempDir()) }

func newWorldIn(t *testing.T, dir string) *world {
	t.Helper()
	leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}, Wait: 5 * time.Second})
	for _, d := range []string{"world", "layer"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t, dir: dir}
	w.reopen()
	t.Cleanup(func() {
		for _, r := range w.list() {
			if err := w.Remove(context.Background(), string(r.Spec.ID), true); err != nil {
				t.Errorf("remove: %v", err)
			}
		}
		w.wantEmpty()
	})
	return w
}

// reopen does what the next command does.
func (w *world) reopen() {
	w.t.Helper()
	cfg := config(w.dir)
	cfg.Warn = func(m string) {
		w.mu.Lock()
		w.said = append(w.said, m)
		w.mu.Unlock()
	}
	var err error
	if w.Engine, err = Open(context.Background(), cfg); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) list() []*Record {
	w.t.Helper()
	rs, err := w.List(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return rs
}

// wantEmpty fails if anything of any workload is left. It waits a moment: a supervisor
// may still be removing a workload of --rm, which nobody sees any more.
func (w *world) wantEmpty() {
	w.t.Helper()
	left := w.left()
	for deadline := time.Now().Add(5 * time.Second); len(left) > 0 && time.Now().Before(deadline); left = w.left() {
		time.Sleep(5 * time.Millisecond)
	}
	if len(left) > 0 {
		w.t.Errorf("left behind: %v", left)
	}
}

// left names what belongs to workloads on disk and in the fake's world.
func (w *world) left() []string {
	var left []string
	for _, d := range []string{"root/workloads", "root/names", "root/idrange", "root/trash", "root/run", "world"} {
		names, err := os.ReadDir(filepath.Join(w.dir, d))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, n := range names {
			if n.Name() == "warm" {
				left = append(left, w.leftWarm()...)
				continue
			}
			if n.Name() != "lock" && n.Name() != "boot" && !strings.HasPrefix(n.Name(), "events") {
				left = append(left, filepath.Join(d, n.Name()))
			}
		}
	}
	cgroups := cgroupDirs("/*")
	for _, c := range cgroups {
		if fi, err := os.Stat(c); err == nil && fi.IsDir() && filepath.Base(c) != "supervisors" {
			left = append(left, c)
		}
	}
	return left
}

func process(args ...string) workload.Process {
	return workload.Process{Args: append([]string{fake.Program}, args...), Cwd: "/", Env: []string{"A=1"}}
}

func spec(args ...string) workload.Spec {
	return workload.Spec{
		Boundary: testBoundary("").Name(), Process: process(args...), Network: "none", StopTimeout: time.Second,
	}
}

// run runs a workload to its end and returns its output.
func (w *world) run(s workload.Spec, in string) (exit workload.Exit, stdout, stderr string) {
	w.t.Helper()
	var out, errs bytes.Buffer
	io := &Streams{Out: &out, Err: &errs}
	if in != "" {
		s.KeepStdin = true
		io.In = strings.NewReader(in)
	}
	session, err := w.Run(ctx(w.t), s, io)
	if err != nil {
		w.t.Fatal(err)
	}
	exit, err = session.Wait(ctx(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	return exit, out.String(), errs.String()
}

// patience is how long a test waits for what must come: only what hangs takes as
// long. Twenty containers that start at once on an emulated machine take a minute.
const patience = 2 * time.Minute

// ctx ends a test that hangs.
func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return c
}

// child runs a command in a process of its own and returns how it ended and
// what it wrote.
func (w *world) child(c command, env ...string) (killed bool, output string) {
	w.t.Helper()
	c.Dir = w.dir
	b, err := json.Marshal(c)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), envRole+"=command", envCgroup+"="+testCgroup, envCommand+"="+string(b)), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		w.t.Fatal(err)
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ws.Signaled() && ws.Signal() == syscall.SIGKILL, out.String()
}
