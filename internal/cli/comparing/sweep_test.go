package comparing

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/scratch"
)

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestSweep: what a comparison left goes, and nothing else, whatever its name.
func TestSweep(t *testing.T) {
	state := newEngine(t, "docker", "podman", "bulkhead")
	parent := scratch.Below(t.TempDir(), "compare")
	killed, _, err := scratch.Open(parent)
	if err != nil {
		t.Fatal(err)
	}
	killed.Close()
	for name, label := range map[string]string{
		"compare-idle-0123": Label + "=" + killed.ID, "compare-2025-db-1": "", "compare-idle-4567": Label + "=" + strings.Repeat("0", 32),
	} {
		if err := os.WriteFile(filepath.Join(state, "workloads", name), []byte(label+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const foreign = "localhost/bulkhead-compare:compare-2025-0123\nbulkhead-compare:mine\ndebian:12\n"
	images := "localhost/" + tagged(killed.ID, "0123") + "\n" + foreign
	if err := os.WriteFile(filepath.Join(state, "images"), []byte(images), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"docker.used", archiveFile} {
		if err := os.WriteFile(filepath.Join(killed.Path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	running, stale, err := scratch.Open(parent)
	if err != nil || len(stale) != 1 {
		t.Fatalf("%d stale: %v", len(stale), err)
	}
	defer running.Close()
	var told []string
	c := &comparison{Options: Options{Bulkhead: []string{"bulkhead"}, Warn: func(m string) { told = append(told, m) }}}
	c.sweep(t.Context(), stale)
	if left := names(t, filepath.Join(state, "workloads")); !slices.Equal(left, []string{"compare-2025-db-1", "compare-idle-4567"}) {
		t.Errorf("workloads are left: %q", left)
	}
	if b, err := os.ReadFile(filepath.Join(state, "images")); err != nil || string(b) != foreign {
		t.Errorf("images are left: %q, %v", b, err)
	}
	if _, err := os.Stat(killed.Path); !errors.Is(err, os.ErrNotExist) || len(told) > 0 {
		t.Errorf("the directory: %v; told %q", err, told)
	}
}

// TestSweepLater: an engine that does not answer is asked again by the next
// comparison; one that was not used is not asked.
func TestSweepLater(t *testing.T) {
	newEngine(t, "bulkhead")
	bin, _, _ := strings.Cut(os.Getenv("PATH"), ":")
	if err := os.WriteFile(filepath.Join(bin, "podman"), []byte("#!/bin/sh\nexit 125\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	parent := scratch.Below(t.TempDir(), "compare")
	killed, _, err := scratch.Open(parent)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed.Path, "podman.used"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(killed.Path, runtimeRootDir), 0o755); err != nil {
		t.Fatal(err)
	}
	killed.Close()
	running, stale, err := scratch.Open(parent)
	if err != nil || len(stale) != 1 {
		t.Fatalf("%d stale: %v", len(stale), err)
	}
	defer running.Close()
	var told []string
	c := &comparison{Options: Options{Bulkhead: []string{"bulkhead"}, Warn: func(m string) { told = append(told, m) }}}
	c.sweep(t.Context(), stale)
	if len(told) != 1 || !strings.Contains(told[0], "podman") {
		t.Errorf("told %q", told)
	}
	if left := names(t, killed.Path); !slices.Equal(left, []string{"podman.used"}) {
		t.Errorf("written down is %q", left)
	}
	if _, stale, err := scratch.Open(parent); err != nil || len(stale) != 1 {
		t.Errorf("the next comparison finds %d: %v", len(stale), err)
	}
}

// TestRunLeavesNothing: a program that ignores that its command is ended goes all
// the same.
func TestRunLeavesNothing(t *testing.T) {
	state := newEngine(t, "docker")
	d := &tool{program: []string{"docker"}, id: "0123", image: "box"}
	ready := filepath.Join(state, "ready")
	for _, word := range []string{"stubborn", "fails", "good"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := run(ctx, d, []string{word}, func(cmd *exec.Cmd) error {
			cmd.WaitDelay = 100 * time.Millisecond
			if word == "stubborn" {
				go func() {
					defer cancel()
					for ctx.Err() == nil {
						if _, err := os.Stat(ready); err == nil {
							return
						}
						time.Sleep(10 * time.Millisecond)
					}
				}()
			}
			_, err := outputOf(ctx, cmd, d)
			return err
		})
		cancel()
		if (err == nil) != (word == "good") {
			t.Errorf("%s: %v", word, err)
		}
		if left := names(t, filepath.Join(state, "workloads")); len(left) > 0 {
			t.Errorf("%s: %q is left", word, left)
		}
	}
	if _, err := os.Stat(ready); err != nil {
		t.Errorf("nothing was stubborn: %v", err)
	}
}

// TestEndRooted: what has a directory as its root goes, in whatever session and
// mount namespace it is.
func TestEndRooted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const busybox = "/bin/busybox" // Debian's package busybox-static
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	start := func(chroot string, attr syscall.SysProcAttr) *exec.Cmd {
		attr.Chroot = chroot
		cmd := &exec.Cmd{Path: "/busybox", Args: []string{"sleep", "60"}, Dir: "/", SysProcAttr: &attr}
		if chroot == "" {
			cmd.Path = busybox
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		return cmd
	}
	gone := []*exec.Cmd{start(root, syscall.SysProcAttr{Setsid: true}), start(root, syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS})}
	kept, other := start(root, syscall.SysProcAttr{}), start("", syscall.SysProcAttr{})
	if err := endRooted(t.Context(), root, func(pid int) bool { return pid == kept.Process.Pid }); err != nil {
		t.Fatal(err)
	}
	for i, cmd := range gone {
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, cmd := range []*exec.Cmd{kept, other} {
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("%v was killed: %v", cmd.Args, err)
		}
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err == nil {
			t.Error("a sleep ended well")
		}
	}
	if err := endRooted(t.Context(), filepath.Join(root, "missing"), nil); err != nil {
		t.Error(err)
	}
}

// TestNotTheFirstThread: the thread whose root directory is another is never the one
// that stands for this process in /proc, on which goroutines are where there is one
// processor.
func TestNotTheFirstThread(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const child = "COMPARING_FIRST_THREAD"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestNotTheFirstThread$")
		cmd.Env = append(os.Environ(), child+"=1", "GOMAXPROCS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	root := t.TempDir()
	want, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		thread, err := newThread(root)
		if err != nil {
			t.Fatal(err)
		}
		if rooted(os.Getpid(), want) {
			t.Fatal("the process itself has the other root directory")
		}
		thread.end()
	}
}
