package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestSignalCreated: a container that was not started has run nothing that could
// have chosen to ignore a signal, so signals end it, whoever sends them. One
// whose default action is not to end a process leaves it as it is.
func TestSignalCreated(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "60")
	for _, c := range []struct{ id, signal string }{
		{"lifecycle-created-default", ""}, {"lifecycle-created-hup", "HUP"}, {"lifecycle-created-usr1", "USR1"},
	} {
		h.must("create", "--bundle", h.bundle, c.id)
		h.must("kill", c.id, "WINCH")
		if st, _ := h.status(c.id); st != "created" {
			t.Errorf("%s is %s after SIGWINCH", c.id, st)
		}
		args := []string{"kill", c.id}
		if c.signal != "" {
			args = append(args, c.signal)
		}
		h.must(args...)
		h.waitFor(c.id, "stopped")
		if code, _, _ := h.call("start", c.id); code == 0 {
			t.Errorf("%s was started after its end", c.id)
		}
		h.must("delete", c.id)
	}
	const id = "lifecycle-created-sent"
	h.must("create", "--bundle", h.bundle, id)
	_, pid := h.status(id)
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.waitFor(id, "stopped")
	h.must("delete", id)
}

// TestSignalStarted: what ended the container before its start leaves no trace
// in its program: the kernel keeps SIGTERM from a first process without handler,
// and the dispositions are the defaults.
func TestSignalStarted(t *testing.T) {
	h := newHost(t)
	const id = "lifecycle-started-signal"
	h.write(func(s *specs.Spec) { s.Process.User.UID = 1000 }, "sleep", "60")
	h.must("run", "-d", "--bundle", h.bundle, id)
	_, pid := h.status(id)
	h.must("kill", id)
	if st, _ := h.status(id); st != "running" {
		t.Errorf("sleep as first process is %s after SIGTERM", st)
	}
	for _, field := range []string{"SigCgt", "SigIgn", "SigBlk"} {
		if mask := statusField(t, pid, field); mask != "0000000000000000" {
			t.Errorf("%s of the program: %s", field, mask)
		}
	}
	h.must("delete", "--force", id)
}

// statusField reads a field of proc_pid_status(5).
func statusField(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); key == name {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no field %s in the status of process %d", name, pid)
	return ""
}

// TestPauseCreated: a container that is paused before its start says so, is not
// started meanwhile, and can be resumed and started.
func TestPauseCreated(t *testing.T) {
	h := newHost(t)
	const id = "lifecycle-pause-created"
	h.create(id)
	defer h.must("delete", "--force", id)
	h.must("pause", id)
	if st, _ := h.status(id); st != "paused" {
		t.Fatalf("paused: %s", st)
	}
	if code, _, errs := h.call("start", id); code == 0 || !strings.Contains(errs, "paused, not created") {
		t.Errorf("start while paused: %d, %q", code, errs)
	}
	h.must("resume", id)
	if st, _ := h.status(id); st != "created" {
		t.Errorf("resumed: %s", st)
	}
	h.must("start", id)
	if st, _ := h.status(id); st != "running" {
		t.Errorf("started: %s", st)
	}
}

// TestDeletePausedCreated: a container that has run nothing yet is deleted as it is,
// frozen or not.
func TestDeletePausedCreated(t *testing.T) {
	h := newHost(t)
	const id = "lifecycle-delete-paused-created"
	h.create(id)
	h.must("pause", id)
	h.must("delete", id)
	if code, _, _ := h.call("state", id); code == 0 {
		t.Error("it is still there")
	}
}

// TestStartKilled: a start that was killed after it let the program run leaves a
// container that runs and says so.
func TestStartKilled(t *testing.T) {
	h := newHost(t)
	const id = "lifecycle-start-killed"
	h.create(id)
	defer h.must("delete", "--force", id)
	if err := os.WriteFile(filepath.Join(h.root, id, "start"), []byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	h.waitFor(id, "running")
	if code, _, errs := h.call("start", id); code == 0 || !strings.Contains(errs, "running, not created") {
		t.Errorf("a second start: %d, %q", code, errs)
	}
}

// create makes a container that would sleep, and does not start it.
func (h *host) create(id string) {
	h.t.Helper()
	h.write(nil, "sleep", "1000")
	h.must("create", "--bundle", h.bundle, id)
}

// TestFailedCreateThatStays: a container that cannot be ended after a failed create is
// not forgotten. The mount on its cgroup keeps that from being removed.
func TestFailedCreateThatStays(t *testing.T) {
	h := newHost(t)
	defer func(was time.Duration) { endTime = was }(endTime)
	const id = "lifecycle-stays"
	free := func() {
		text, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(text)) {
			if at := strings.Fields(line)[1]; strings.HasSuffix(at, "/bulkhead-oci/"+id) {
				if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			}
		}
	}
	t.Cleanup(func() {
		free()
		if !t.Failed() {
			return
		}
		endTime = 10 * time.Second
		h.call("delete", "--force", id)
	})
	poststop := filepath.Join(t.TempDir(), "poststop")
	h.write(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{
			CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c",
				"for d in /sys/fs/cgroup/bulkhead-oci/" + id + " /sys/fs/cgroup/*/bulkhead-oci/" + id + "; do " +
					"if [ -d $d ]; then mount --bind $d $d || exit 2; fi; done; exit 1"}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}},
			Poststop: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo >>" + poststop}}},
		}
	}, "sleep", "1000")
	endTime = 500 * time.Millisecond
	code, _, errs := h.call("create", "--bundle", h.bundle, id)
	if code == 0 || !strings.Contains(errs, "delete container "+id) {
		t.Errorf("create: %d, %s", code, errs)
	}
	h.status(id) // which must know it
	if code, _, _ := h.call("delete", id); code == 0 {
		t.Error("it was deleted and its cgroup was not")
	}
	if _, err := os.Stat(poststop); err == nil {
		t.Error("the poststop hook ran, and the container is there")
	}
	free()
	endTime = 10 * time.Second
	h.must("delete", id)
	if text, err := os.ReadFile(poststop); err != nil || string(text) != "\n" {
		t.Errorf("the poststop hook left %q, %v", text, err)
	}
}
