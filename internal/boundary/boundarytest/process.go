package boundarytest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func testExitCodes(r *run) {
	for _, code := range []string{"0", "1", "125", "127", "255"} {
		exit, _, _ := r.complete(r.spec("exit", code))
		if want := map[string]int{"0": 0, "1": 1, "125": 125, "127": 127, "255": 255}[code]; exit.Code != want || exit.Signal != 0 {
			r.Errorf("exit %s: got %+v", code, exit)
		}
		if exit.At.IsZero() {
			r.Errorf("exit %s: the time is missing", code)
		}
	}
}

func testStreams(r *run) {
	_, out, errs := r.complete(r.spec("both"))
	if out != "to stdout\n" || errs != "to stderr\n" {
		r.Errorf("got %q and %q", out, errs)
	}
	p, w, err := blockingPipe()
	if err != nil {
		r.Fatal(err)
	}
	defer p.Close()
	defer w.Close()
	o := r.output()
	in := r.start(r.spec("cat"), boundary.Stdio{In: p, Out: o.w})
	p.Close()
	o.started()
	const text = "any\x00bytes\xff\n"
	if _, err := w.WriteString(text); err != nil {
		r.Error(err)
	}
	w.Close()
	if exit := r.wait(in); exit.Code != 0 {
		r.Errorf("cat: got %+v", exit)
	}
	if got := o.text(); got != text {
		r.Errorf("cat: got %q, want %q", got, text)
	}
}

func testManyBytes(r *run) {
	exit, out, _ := r.complete(r.spec("bytes", "3000000"))
	if exit.Code != 0 || len(out) != 3000000 {
		r.Fatalf("got %+v, %d bytes", exit, len(out))
	}
	for i := range len(out) {
		if out[i] != byte(i) {
			r.Fatalf("byte %d: got %d", i, out[i])
		}
	}
}

func testNoStreams(r *run) {
	if exit := r.wait(r.start(r.spec("cat"), boundary.Stdio{})); exit.Code != 0 {
		r.Errorf("cat without streams: got %+v", exit)
	}
	if exit := r.wait(r.start(r.spec("both"), boundary.Stdio{})); exit.Code != 0 {
		r.Errorf("output without streams: got %+v", exit)
	}
}

// testNotFound accepts the error from Create or from Start.
func testNotFound(r *run) {
	for cmd, want := range r.badCommands() {
		s := r.spec()
		s.Process.Args = []string{cmd}
		p := r.Prepare(r, s)
		in, err := r.Boundary.Create(r.ctx(), s, p)
		if err == nil {
			err = in.Start(r.ctx())
			if derr := in.Delete(r.ctx()); derr != nil {
				r.Error(derr)
			}
		}
		if !errors.Is(err, want) {
			r.Errorf("%s: got %v, want %v", cmd, err, want)
		}
	}
}

func (r *run) badCommands() map[string]error {
	return map[string]error{"/nowhere/at/all": workload.ErrCommandNotFound, r.NotExecutable: workload.ErrNotExecutable}
}

// testEnvironment allows for a HOME, which only the boundary can look up.
func testEnvironment(r *run) {
	exit, out, errs := r.complete(r.spec("env"))
	got, want := withoutHome(out), "PATH=/bin\nA=one\nB=two words\n"
	if _, lacking := r.Lacks[EnvOrder]; lacking {
		got, want = sorted(got), sorted(want)
	}
	if exit.Code != 0 || got != want {
		r.Errorf("got %+v, %q, %q", exit, out, errs)
	}
}

func sorted(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func withoutHome(env string) string {
	lines := slices.DeleteFunc(strings.SplitAfter(env, "\n"), func(l string) bool { return strings.HasPrefix(l, "HOME=") })
	return strings.Join(lines, "")
}

func testWorkingDirectory(r *run) {
	s := r.spec("pwd")
	s.Process.Cwd = "/bin"
	r.want(s, "/bin\n")
}

func testSignals(r *run) {
	line, w := r.lines()
	in := r.start(r.spec("wait-signal", "USR1"), boundary.Stdio{Out: w})
	w.Close()
	if got := line(); got != "ready" {
		r.Fatalf("got %q", got)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1} {
		if err := in.Signal(r.ctx(), sig); err != nil {
			r.Errorf("signal %d: %v", int(sig), err)
		}
		want := map[syscall.Signal]string{15: "signal 15", 1: "signal 1", 10: "signal 10"}[sig]
		if got := line(); got != want {
			r.Errorf("got %q, want %q", got, want)
		}
	}
	if exit := r.wait(in); exit.Code != 7 {
		r.Errorf("got %+v", exit)
	}
}

func testKill(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	if err := in.Signal(r.ctx(), syscall.SIGKILL); err != nil {
		r.Error(err)
	}
	if exit := r.wait(in); exit.Code != 137 || exit.Signal != 9 || exit.OOMKilled {
		r.Errorf("got %+v, want 137 by signal 9", exit)
	}
}

func testExec(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	p := r.process("env")
	p.Env = []string{"OTHER=1"}
	if exit, out := r.exec(in, p); exit.Code != 0 || withoutHome(out) != "OTHER=1\n" {
		r.Errorf("environment: got %+v, %q", exit, out)
	}
	p = r.process("pwd")
	p.Cwd = "/bin"
	if exit, out := r.exec(in, p); exit.Code != 0 || out != "/bin\n" {
		r.Errorf("working directory: got %+v, %q", exit, out)
	}
	if exit, _ := r.exec(in, r.process("exit", "42")); exit.Code != 42 {
		r.Errorf("status: got %+v", exit)
	}
	// Many at a time.
	var procs []boundary.Process
	for range 10 {
		proc, err := in.Exec(r.ctx(), r.process("exit", "3"), boundary.Stdio{})
		if err != nil {
			r.Fatal(err)
		}
		procs = append(procs, proc)
	}
	for _, proc := range procs {
		if exit := r.wait(proc); exit.Code != 3 {
			r.Errorf("one of many: got %+v", exit)
		}
	}
	// One that is running when everything ends.
	proc, err := in.Exec(r.ctx(), r.process("pause"), boundary.Stdio{})
	if err != nil {
		r.Fatal(err)
	}
	if err := in.Delete(r.ctx()); err != nil {
		r.Error(err)
	}
	if exit := r.wait(proc); exit.Code != 137 {
		r.Errorf("at the end: got %+v", exit)
	}
}

func testExecErrors(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	for cmd, want := range r.badCommands() {
		p := r.process()
		p.Args = []string{cmd}
		if _, err := in.Exec(r.ctx(), p, boundary.Stdio{}); !errors.Is(err, want) {
			r.Errorf("%s: got %v, want %v", cmd, err, want)
		}
	}
	// The instance is none the worse.
	if exit, _ := r.exec(in, r.process("exit", "5")); exit.Code != 5 {
		r.Errorf("afterwards: got %+v", exit)
	}
}

func testExecSignal(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	if exit, _ := r.exec(in, r.process("kill", "QUIT")); exit.Code != 131 && exit.Code != 2 {
		r.Errorf("by its own signal: got %+v", exit) // Go programs turn SIGQUIT into status 2
	}
	if exit, _ := r.exec(in, r.process("kill", "KILL")); exit.Code != 137 || exit.Signal != 9 {
		r.Errorf("by SIGKILL: got %+v", exit)
	}
}

func testTerminal(r *run) {
	s := r.spec("terminal")
	s.Process.Terminal, s.Process.Rows, s.Process.Cols = true, 33, 99
	in := r.start(s, boundary.Stdio{})
	r.useTerminal(in)
}

func testExecTerminal(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	p := r.process("terminal")
	p.Terminal, p.Rows, p.Cols = true, 33, 99
	proc, err := in.Exec(r.ctx(), p, boundary.Stdio{})
	if err != nil {
		r.Fatal(err)
	}
	r.useTerminal(proc)
}

// useTerminal talks to the command "terminal".
func (r *run) useTerminal(p boundary.Process) {
	r.Helper()
	term := p.Terminal()
	if term == nil {
		r.Fatal("no terminal")
	}
	defer term.Close()
	if got := r.line(term); got != "33 99" {
		r.Errorf("got %q", got)
	}
	if err := term.Resize(50, 132); err != nil {
		r.Error(err)
	}
	if got := r.line(term); got != "50 132" {
		r.Errorf("resized: got %q", got)
	}
	if _, err := term.Write([]byte("x\n")); err != nil {
		r.Error(err)
	}
	// Somebody must read, or the process cannot write.
	go io.Copy(io.Discard, term)
	if exit := r.wait(p); exit.Code != 0 {
		r.Errorf("got %+v", exit)
	}
}

func testHostname(r *run) { r.want(r.spec("hostname"), "inside\n") }

func testUsers(r *run) {
	for user, want := range map[string]string{"": "0 0\n", "1000": "1000 0\n", "1000:1001": "1000 1001\n"} {
		s := r.spec("id")
		s.Process.User = user
		r.want(s, want)
	}
}

func testFiles(r *run) {
	in := r.start(r.spec("pause"), boundary.Stdio{})
	if exit, out := r.exec(in, r.process("write", "/new", "text")); exit.Code != 0 || out != "ok\n" {
		r.Errorf("write: got %+v, %q", exit, out)
	}
	if exit, out := r.exec(in, r.process("read", "/new")); exit.Code != 0 || out != "text\n" {
		r.Errorf("read: got %+v, %q", exit, out)
	}
}

// testStreamsByName opens a stream that is a pipe by its name, which asks for
// more rights than writing to it: many images' logs are links to /dev/stdout.
func testStreamsByName(r *run) {
	for _, user := range []string{"", "1000:1000"} {
		s := r.spec("write", "/dev/stdout", "by name\n")
		s.Process.User = user
		r.want(s, "by name\nok\n")
	}
	in := r.start(r.spec("pause"), boundary.Stdio{})
	p := r.process("write", "/dev/stderr", "by name\n")
	p.User = "1000"
	if exit, out := r.exec(in, p); exit.Code != 0 || out != "by name\nok\n" {
		r.Errorf("exec: got %+v, %q", exit, out)
	}
}

func testReadOnlyRoot(r *run) {
	for _, name := range []string{"/new", "/tmp/new"} {
		s := r.spec("write", name, "text")
		s.ReadOnlyRoot = true
		if exit, out, errs := r.complete(s); exit.Code != 1 || !strings.Contains(errs, "read-only") {
			r.Errorf("%s: got %+v, %q, %q", name, exit, out, errs)
		}
	}
}

// testFilter wants the default filter's answer to clone3: glibc makes threads in an
// older way after no other.
func testFilter(r *run) { r.want(r.spec("clone3"), "function not implemented\n") }

func testMounts(r *run) {
	dir := r.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("from the host"), 0o644); err != nil {
		r.Fatal(err)
	}
	r.readable(dir)
	s := r.spec("read", "/vol/f")
	s.Mounts = []workload.Mount{
		{Type: "bind", Source: dir, Target: "/vol", ReadOnly: true},
		{Type: "tmpfs", Target: "/scratch"},
	}
	r.want(s, "from the host\n")
	s.ID = workload.NewID()
	s.Process = r.process("write", "/vol/new", "text")
	if exit, _, errs := r.complete(s); exit.Code != 1 || !strings.Contains(errs, "read-only") {
		r.Errorf("write to a read-only mount: got %+v, %q", exit, errs)
	}
	s.ID = workload.NewID()
	s.Process = r.process("write", "/scratch/new", "text")
	r.want(s, "ok\n")
	s.ID = workload.NewID()
	s.Mounts[0].Source = filepath.Join(dir, "missing")
	in, err := r.Boundary.Create(r.ctx(), s, r.Prepare(r, s))
	if err == nil {
		in.Delete(r.ctx())
		r.Error("a mount whose source is missing: no error")
	} else if !strings.Contains(err.Error(), "missing") {
		r.Errorf("a mount whose source is missing: got %v", err)
	}
}

// testSubmounts wants what is mounted below a directory of the host, with options
// of its own, to be as the directory itself is in the workload: without devices,
// and with noexec without programs.
func testSubmounts(r *run) {
	dir, below := r.TempDir(), r.TempDir()
	r.readable(dir)
	r.readable(below)
	BuildProgram(r, filepath.Join(below, "program"))
	const null = 1<<8 | 3 // which the device cgroup lets through (null(4))
	at := filepath.Join(dir, "sub")
	if err := errors.Join(syscall.Mknod(filepath.Join(below, "null"), syscall.S_IFCHR|0o666, null), os.Chmod(filepath.Join(below, "null"), 0o666),
		os.Mkdir(at, 0o755), syscall.Mount(below, at, "", syscall.MS_BIND, "")); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := syscall.Unmount(at, 0); err != nil {
			r.Errorf("unmount: %v", err)
		}
	})
	s := r.spec("pause")
	s.Mounts = []workload.Mount{
		{Type: "bind", Source: dir, Target: "/vol", Recursive: true},
		{Type: "bind", Source: dir, Target: "/scratch", Recursive: true, NoExec: true},
	}
	in := r.start(s, boundary.Stdio{})
	devices := []string{"/vol/sub/null", "/scratch/sub/null"}
	if _, lacking := r.Lacks[NoDevices]; lacking {
		devices = nil
	}
	for _, device := range devices {
		if exit, out := r.exec(in, r.process("write", device, "text")); exit.Code == 0 {
			r.Errorf("%s is a device: got %q", device, out)
		}
	}
	p := r.process("exit", "0")
	p.Args[0] = "/vol/sub/program"
	if exit, out := r.exec(in, p); exit.Code != 0 {
		r.Errorf("%s: got %+v, %q", p.Args[0], exit, out)
	}
	p.Args[0] = "/scratch/sub/program"
	if _, err := in.Exec(r.ctx(), p, boundary.Stdio{}); !errors.Is(err, workload.ErrNotExecutable) {
		r.Errorf("%s: got %v, want %v", p.Args[0], err, workload.ErrNotExecutable)
	}
	if err := in.Delete(r.ctx()); err != nil {
		r.Errorf("delete: %v", err)
	}
}

// readable lets every user pass through the directories of a test down to dir.
func (r *run) readable(dir string) {
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if fi, err := os.Stat(d); err == nil && fi.Mode().Perm()&5 != 5 && strings.HasPrefix(d, os.TempDir()+"/") {
			os.Chmod(d, 0o755)
		}
	}
}

func testDescriptors(r *run) {
	r.want(r.spec("descriptors"), "0 1 2\n")
	in := r.start(r.spec("pause"), boundary.Stdio{})
	if exit, out := r.exec(in, r.process("descriptors")); exit.Code != 0 || out != "0 1 2\n" {
		r.Errorf("exec: got %+v, %q", exit, out)
	}
}

func testMemoryLimit(r *run) {
	limit := int64(64 << 20)
	s := r.spec("allocate", "256")
	s.Resources.Memory, s.Resources.MemorySwap = &limit, &limit
	exit, out, _ := r.complete(s)
	if exit.Code != 137 || !exit.OOMKilled || out != "" {
		r.Errorf("above the limit: got %+v, %q", exit, out)
	}
	s = r.spec("allocate", "16")
	s.Resources.Memory, s.Resources.MemorySwap = &limit, &limit
	if exit, out, errs := r.complete(s); exit.Code != 0 || exit.OOMKilled || out != "done 16\n" {
		r.Errorf("below the limit: got %+v, %q, %q", exit, out, errs)
	}
}

func testPidsLimit(r *run) {
	limit := int64(40)
	s := r.spec("spawn", "60")
	s.Resources.Pids = &limit
	line, w := r.lines()
	r.start(s, boundary.Stdio{Out: w})
	w.Close()
	got := line()
	// Each has at least one thread, and the program itself some.
	var n int
	if _, err := fmt.Sscanf(got, "spawned %d", &n); err == nil && n >= int(limit) || err != nil && !strings.Contains(got, "EOF") {
		r.Errorf("60 processes under a limit of %d: %q", limit, got)
	}
}
