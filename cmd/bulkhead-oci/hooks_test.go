package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestPoststopAfterFailure: what hooks made before the container failed is
// undone by the poststop hooks.
func TestPoststopAfterFailure(t *testing.T) {
	h := newHost(t)
	log := filepath.Join(t.TempDir(), "log")
	after := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >>" + log}}}
	bad := []specs.Hook{{Path: "/bin/false"}}
	for name, hooks := range map[string]*specs.Hooks{
		"createRuntime":  {CreateRuntime: bad, Poststop: after},
		"startContainer": {StartContainer: bad, Poststop: after},
		"poststart":      {Poststart: bad, Poststop: after},
	} {
		h.write(func(s *specs.Spec) { s.Hooks = hooks }, "sleep", "1000")
		for _, way := range []string{"--detach", "--detach=false"} {
			if code, _, _ := h.call("run", way, "--bundle", h.bundle, "lifecycle-poststop"); code == 0 {
				t.Errorf("%s, %s: no failure", name, way)
			}
			var state specs.State
			b, err := os.ReadFile(log)
			if err == nil {
				err = json.Unmarshal(b, &state)
			}
			if err != nil || state.ID != "lifecycle-poststop" || state.Status != specs.StateStopped || state.Pid != 0 {
				t.Errorf("%s, %s: the poststop hook got %q, %v", name, way, b, err)
			}
			os.Remove(log)
		}
	}
	// A container of which no hook has heard has nothing to be undone.
	h.write(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Poststop: after}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nofs"})
	}, "sleep", "1000")
	if code, _, _ := h.call("create", "--bundle", h.bundle, "lifecycle-poststop"); code == 0 {
		t.Error("a file system that there is not was mounted")
	}
	if b, err := os.ReadFile(log); err == nil {
		t.Errorf("a poststop hook ran before any other could: %s", b)
	}
}

// TestLongPoststop: the time for a container to end is not the hooks'.
func TestLongPoststop(t *testing.T) {
	h := newHost(t)
	defer func(was time.Duration) { endTime = was }(endTime)
	endTime = 3 * time.Second
	done := filepath.Join(t.TempDir(), "done")
	h.write(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 4; echo done >" + done}}}}
	}, "true")
	const id = "lifecycle-long-poststop"
	h.must("run", "--detach", "--bundle", h.bundle, id)
	h.waitFor(id, "stopped")
	h.must("delete", id)
	if _, err := os.Stat(done); err != nil {
		t.Errorf("the hook was ended: %v", err)
	}
}

// TestHooksInside: hooks in the container's namespaces get the process ID that
// its first process has there, and are themselves there.
func TestHooksInside(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	to := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "readlink /proc/self/ns/pid >" + filepath.Join(dir, name+".ns") + "; cat >" + filepath.Join(dir, name)}}}
	}
	const id = "lifecycle-hooks-inside"
	h.write(func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/out", Type: "bind", Source: dir, Options: []string{"rbind"}})
		s.Hooks = &specs.Hooks{CreateRuntime: to("createRuntime"), CreateContainer: to("createContainer"), Poststart: to("poststart"),
			StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >/out/startContainer"}}}}
	}, "sleep", "1000")
	if err := os.Mkdir(filepath.Join(h.bundle, "rootfs/out"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.must("run", "--detach", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	_, pid := h.status(id)
	for name, want := range map[string]int{"createRuntime": pid, "createContainer": 1, "startContainer": 1, "poststart": pid} {
		var state specs.State
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(b, &state)
		}
		if err != nil || state.Pid != want {
			t.Errorf("%s got %s, %v; want process %d", name, strings.TrimSpace(string(b)), err, want)
		}
	}
	for name, of := range map[string]int{"createRuntime": os.Getpid(), "createContainer": pid, "poststart": os.Getpid()} {
		want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", of))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, name+".ns")); err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s was in the namespace %q, %v; want %s, where its process ID is meant", name, got, err, want)
		}
	}
}

// TestHooksBeforeReadOnly: hooks that bring files and mounts into a container, such as
// those for drivers of graphics processors, find what will be read-only writable yet.
func TestHooksBeforeReadOnly(t *testing.T) {
	h := newHost(t)
	const id = "lifecycle-hooks-read-only"
	h.write(func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/small", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}})
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-ec",
			"mkdir drivers; mount -t tmpfs -o ro drivers drivers; echo 1 >etc/made; echo 2 >small/made"},
			Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}}}
	}, "sh", "-c", "cat /etc/made /small/made; for f in /drivers/x /etc/made /small/made; do echo 3 >$f; done; cat /proc/mounts")
	code, out, errs := h.call("run", "--bundle", h.bundle, id)
	if code != 0 || !strings.HasPrefix(out, "1\n2\n") || !strings.Contains(out, "drivers /drivers tmpfs ro") {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
	if n := strings.Count(errs, "Read-only file system"); n != 3 {
		t.Errorf("of three files %d were read-only in the container: %s", n, errs)
	}
}

// TestCommandsDuringPoststart: a poststart hook may have other commands work on the
// container, also one that deletes it.
func TestCommandsDuringPoststart(t *testing.T) {
	h := newHost(t)
	defer func(was time.Duration) { lockTime = was }(lockTime)
	lockTime = 3 * time.Second
	dir := t.TempDir()
	const id = "lifecycle-during-poststart"
	h.write(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c",
			"cd " + dir + "; echo >began; until [ -e go ]; do sleep 0.02; done; read code <go; rm began go; exit $code"}}}}
	}, "sleep", "1000")
	for _, c := range []struct {
		code   string
		during func()
		left   bool
	}{
		{"0", func() { h.must("pause", id); h.must("resume", id) }, true},
		{"1", func() { h.must("pause", id); h.must("resume", id) }, false},
		{"0", func() { h.must("delete", "--force", id) }, false},
		{"1", func() { h.must("delete", "--force", id); h.must("create", "--bundle", h.bundle, id) }, true},
	} {
		ended := make(chan int)
		go func() {
			code, _, _ := h.call("run", "--detach", "--bundle", h.bundle, id)
			ended <- code
		}()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(dir, "began")); err == nil {
				break
			} else if time.Now().After(end) {
				t.Fatal("the hook does not begin")
			}
		}
		c.during()
		if err := os.WriteFile(filepath.Join(dir, "go.new"), []byte(c.code+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "go.new"), filepath.Join(dir, "go")); err != nil {
			t.Fatal(err)
		}
		if code := <-ended; (code == 0) != (c.code == "0") {
			t.Errorf("the hook ended with %s, run with %d", c.code, code)
		}
		if code, _, errs := h.call("state", id); (code == 0) != c.left {
			t.Errorf("hook %s: left %v, want %v: %s", c.code, code == 0, c.left, errs)
		}
		h.must("delete", "--force", id)
	}
}
