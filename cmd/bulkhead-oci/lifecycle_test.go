package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// host is one place to run containers in: a state directory and a bundle of
// busybox.
type host struct {
	t      *testing.T
	root   string
	bundle string
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (Debian package busybox-static)")
	}
	h := &host{t: t, root: filepath.Join(t.TempDir(), "state"), bundle: t.TempDir()}
	bin := filepath.Join(h.bundle, "rootfs/bin")
	for _, d := range []string{bin, filepath.Join(h.bundle, "rootfs/etc")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sh", "cat", "sleep", "true", "false", "kill", "test"} {
		if err := os.Symlink("busybox", filepath.Join(bin, a)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(h.checkNothingLeft)
	return h
}

// write makes the bundle's configuration: exampleSpec without a terminal, with
// args, changed as the test wants.
func (h *host) write(change func(*specs.Spec), args ...string) {
	h.t.Helper()
	s := exampleSpec(false)
	s.Process.Terminal, s.Process.Args = false, args
	if change != nil {
		change(s)
	}
	b, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(filepath.Join(h.bundle, "config.json"), b, 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) call(args ...string) (int, string, string) {
	h.t.Helper()
	return call(h.t, append([]string{"--root", h.root}, args...)...)
}

// must calls and requires success.
func (h *host) must(args ...string) string {
	h.t.Helper()
	code, out, errs := h.call(args...)
	if code != 0 {
		h.t.Fatalf("%v: %d, %s", args, code, errs)
	}
	return out
}

func (h *host) status(id string) (st string, pid int) {
	h.t.Helper()
	var s struct {
		Status string
		Pid    int
	}
	if err := json.Unmarshal([]byte(h.must("state", id)), &s); err != nil {
		h.t.Fatal(err)
	}
	return s.Status, s.Pid
}

func (h *host) waitFor(id, want string) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		st, _ := h.status(id)
		if st == want {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s is %s, want %s", id, st, want)
		}
	}
}

func (h *host) checkNothingLeft() {
	if left, err := os.ReadDir(h.root); err == nil && len(left) != 0 {
		h.t.Errorf("left in the state directory: %v", left)
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*/bulkhead-oci/lifecycle-*")
	more, _ := filepath.Glob("/sys/fs/cgroup/bulkhead-oci/lifecycle-*")
	if left = append(left, more...); len(left) != 0 {
		h.t.Errorf("cgroups left: %v", left)
	}
	if m, err := os.ReadFile("/proc/self/mountinfo"); err == nil && strings.Contains(string(m), h.bundle) {
		h.t.Errorf("a mount of %s is left", h.bundle)
	}
}

func TestRunReturnsTheExitCode(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sh", "-c", "echo out; echo err >&2; exit 42")
	code, out, errs := h.call("run", "--bundle", h.bundle, "lifecycle-run")
	if code != 42 || out != "out\n" || errs != "err\n" {
		t.Errorf("got %d, %q, %q", code, out, errs)
	}
	h.write(nil, "no-such-program")
	if code, _, errs := h.call("run", "--bundle", h.bundle, "lifecycle-run"); code == 0 || !strings.Contains(errs, "executable file not found") {
		t.Errorf("a missing program: %d, %q", code, errs)
	}
}

func TestCreateStartKillDelete(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "1000")
	pidFile := filepath.Join(t.TempDir(), "pid")
	const id = "lifecycle-steps"
	h.must("create", "--bundle", h.bundle, "--pid-file", pidFile, id)
	st, pid := h.status(id)
	if b, err := os.ReadFile(pidFile); err != nil || st != "created" || string(b) != strconv.Itoa(pid) {
		t.Errorf("created: %s, process %d, pid file %q, %v", st, pid, b, err)
	}
	if code, _, errs := h.call("create", "--bundle", h.bundle, id); code == 0 || !strings.Contains(errs, "already exists") {
		t.Errorf("a second create: %d, %q", code, errs)
	}
	h.must("exec", id, "true")
	h.must("start", id)
	if code, _, errs := h.call("start", id); code == 0 || !strings.Contains(errs, "running, not created") {
		t.Errorf("a second start: %d, %q", code, errs)
	}
	if code, _, _ := h.call("exec", id, "sh", "-c", "exit 7"); code != 7 {
		t.Errorf("exec: %d, want 7", code)
	}
	if code, _, _ := h.call("exec", id, "no-such-program"); code != 255 {
		t.Errorf("exec of a missing program: %d, want 255", code)
	}
	h.must("pause", id)
	if st, _ := h.status(id); st != "paused" {
		t.Errorf("paused: %s", st)
	}
	if code, _, errs := h.call("exec", id, "true"); code != 255 || !strings.Contains(errs, "paused") {
		t.Errorf("exec while paused: %d, %q", code, errs)
	}
	h.must("resume", id)
	if out := h.must("ps", "--format", "json", id); !strings.Contains(out, strconv.Itoa(pid)) {
		t.Errorf("ps: %s, want it to hold %d", out, pid)
	}
	if out := h.must("events", "--stats", id); !strings.HasPrefix(out, `{"type":"stats","id":"`+id+`","data":{"cpu":`) {
		t.Errorf("stats: %.80s", out)
	}
	if code, _, errs := h.call("delete", id); code == 0 || !strings.Contains(errs, "not stopped") {
		t.Errorf("delete while running: %d, %q", code, errs)
	}
	h.must("kill", id, "KILL")
	h.waitFor(id, "stopped")
	if code, _, errs := h.call("kill", id, "0"); code == 0 || !strings.Contains(errs, "not running") {
		t.Errorf("kill when stopped: %d, %q", code, errs)
	}
	h.must("delete", id)
}

// TestExecOfLittle executes a process of which an engine says no more than what it
// is: the container's limits and capabilities are its own.
func TestExecOfLittle(t *testing.T) {
	h := newHost(t)
	h.write(func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}}
	}, "sleep", "1000")
	const id = "lifecycle-little"
	h.must("run", "--detach", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	const show = `ulimit -n; while read -r line; do case $line in Cap*) echo "$line" ;; esac; done </proc/self/status`
	file := filepath.Join(t.TempDir(), "process.json")
	b, err := json.Marshal(map[string]any{"cwd": "/", "args": []string{"/bin/sh", "-c", show}})
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, want := h.must("exec", "--process", file, id), h.must("exec", id, "/bin/sh", "-c", show)
	if got != want || !strings.HasPrefix(want, "77\n") || strings.Contains(want, "CapBnd:\t0000000000000000") {
		t.Errorf("got\n%s, and of a process that flags describe\n%s", got, want)
	}
}

// TestExecWarnsOfCapabilities wants a word for a capability that the kernel does not
// know, as at create.
func TestExecWarnsOfCapabilities(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "1000")
	const id = "lifecycle-caps"
	h.must("run", "--detach", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	if code, _, errs := h.call("exec", "--cap", "CAP_NO_SUCH", id, "true"); code != 0 || !strings.Contains(errs, "no capability CAP_NO_SUCH") {
		t.Errorf("got %d, %q", code, errs)
	}
}

func TestUpdateAndForcedDelete(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "1000")
	const id = "lifecycle-update"
	h.must("run", "--detach", "--bundle", h.bundle, id)
	h.must("update", "--pids-limit", "77", id)
	files, _ := filepath.Glob("/sys/fs/cgroup/*/bulkhead-oci/" + id + "/pids.max")
	v2, _ := filepath.Glob("/sys/fs/cgroup/bulkhead-oci/" + id + "/pids.max")
	found := false
	for _, f := range append(files, v2...) {
		if b, err := os.ReadFile(f); err == nil && string(b) == "77\n" {
			found = true
		}
	}
	if !found {
		t.Errorf("the limit is in none of %v %v", files, v2)
	}
	h.must("delete", "--force", id)
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	h := newHost(t)
	bad := []specs.Hook{{Path: "/bin/false"}}
	for name, change := range map[string]func(*specs.Spec){
		"mount":         func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nofs"}) },
		"createRuntime": func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: bad} },
		"container":     func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateContainer: bad} },
		"start":         func(s *specs.Spec) { s.Hooks = &specs.Hooks{StartContainer: bad} },
		"poststart":     func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststart: bad} },
	} {
		h.write(change, "sleep", "1000")
		if code, _, errs := h.call("run", "--bundle", h.bundle, "lifecycle-bad"); code == 0 || errs == "" {
			t.Errorf("%s: %d, %q; want a failure", name, code, errs)
		}
		h.checkNothingLeft()
	}
	h.write(nil, "sleep", "1000")
	if code, _, _ := h.call("create", "--bundle", h.bundle, "--pid-file", "/no/such/dir/pid", "lifecycle-bad"); code == 0 {
		t.Error("a pid file that cannot be written was no error")
	}
}

func TestConsoleSocket(t *testing.T) {
	h := newHost(t)
	h.write(func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "test -t 0 && echo terminal")
	if code, _, errs := h.call("create", "--bundle", h.bundle, "lifecycle-tty"); code == 0 || !strings.Contains(errs, "--console-socket") {
		t.Errorf("no socket: %d, %q", code, errs)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() { got <- readTerminal(l) }()
	h.must("run", "--detach", "--bundle", h.bundle, "--console-socket", socket, "lifecycle-tty")
	if out := <-got; !strings.Contains(out, "terminal") {
		t.Errorf("the terminal said %q", out)
	}
	h.waitFor("lifecycle-tty", "stopped")
	h.must("delete", "lifecycle-tty")
}
