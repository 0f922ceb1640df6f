//go:build kvm

// Package kvm is a smoke test of the path that real machines take: a guest on
// hardware virtualization, made by the built programs. The hardware is the test
// guest's (tests/guest/run -kvm), whose /dev/kvm QEMU emulates: what takes
// milliseconds elsewhere takes a minute here, and nothing is timed.
package kvm

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// kernels is the directory of the kernels to boot, each a file. Modules of
// theirs are those that the test guest has.
const kernels = "/guest/kernels"

// limit is how long a command may take. It only ends what hangs: on a busy machine
// a boot, to make a template, and a restore have taken more than four minutes.
const limit = 12 * time.Minute

// host is one state root.
type host struct {
	testing.TB
	root string
}

func newHost(t testing.TB) *host {
	t.Helper()
	// Socket paths end at 107 bytes (unix(7)), so state lies in a short directory.
	dir, err := os.MkdirTemp("", "kvm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		// Empty by now, and kept for the next workload; removing fails otherwise.
		for _, name := range []string{"bulkhead/supervisors", "bulkhead"} {
			os.Remove("/sys/fs/cgroup/" + name)
		}
	})
	return &host{t, dir}
}

// do runs bulkhead to its end.
func (h *host) do(args ...string) (stdout, stderr string, code int) {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bulkhead", args...)
	cmd.Env = append(os.Environ(), "BULKHEAD_ROOT="+h.root)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	began := time.Now()
	failed := cmd.Run()
	var exit *exec.ExitError
	if failed != nil && !errors.As(failed, &exit) {
		h.Fatalf("bulkhead %s: %v", strings.Join(args, " "), failed)
	}
	h.Logf("bulkhead %s: status %d after %.1fs", strings.Join(args, " "), cmd.ProcessState.ExitCode(), time.Since(began).Seconds())
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// ok runs bulkhead, which must end with 0, and returns what it printed.
func (h *host) ok(args ...string) string {
	h.Helper()
	out, err, code := h.do(args...)
	if code != 0 {
		h.Fatalf("bulkhead %s: status %d\n%s%s", strings.Join(args, " "), code, out, err)
	}
	return strings.TrimSpace(out)
}

// TestKVMDoctor: doctor finds the virtualization, and QEMU.
func TestKVMDoctor(t *testing.T) {
	out, _, _ := newHost(t).do("doctor", "--format", "json")
	var results []struct{ Name, Status, Detail string }
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := map[string]bool{}
	for _, r := range results {
		found[r.Name] = true
		if (r.Name == "QEMU" || r.Name == "hardware virtualization") && r.Status != "ok" {
			t.Errorf("%+v", r)
		}
	}
	if !found["QEMU"] || !found["hardware virtualization"] {
		t.Errorf("doctor says nothing of virtual machines:\n%s", out)
	}
}

// TestKVMRun runs workloads in guests on KVM, and looks at both sides.
func TestKVMRun(t *testing.T) {
	entries, err := os.ReadDir(kernels)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) { testRun(t, filepath.Join(kernels, e.Name())) })
	}
}

func testRun(t *testing.T, kernel string) {
	h := newHost(t)
	leakcheck.Check(t, leakcheck.Options{Paths: []string{h.root}, Wait: 10 * time.Second})
	tree := filepath.Join(h.root, "box.tar")
	writeImage(t, tree)
	h.ok("import", tree, "box")
	run := func(args ...string) []string {
		return append([]string{"run", "--boundary", "vm", "--kernel", kernel, "--memory", "128m", "--network", "none"}, args...)
	}

	t.Run("foreground", func(t *testing.T) {
		h := &host{t, h.root}
		// Nobody asked for KVM: it is what works best.
		out, errText, code := h.do(run("--rm", "box", "sh", "-c", "echo out; echo err >&2; cat /sys/devices/system/clocksource/clocksource0/available_clocksource; exit 7")...)
		if code != 7 || !strings.HasPrefix(out, "out\n") || !strings.Contains(errText, "err\n") {
			t.Errorf("status %d\n%s%s", code, out, errText)
		}
		// The guest's kernel sees KVM: no emulation offers this clock.
		if !strings.Contains(out, "kvm-clock") {
			t.Errorf("the guest's clocks: %s", out)
		}
		// Neither is it called emulated, nor did it boot for want of a template.
		if errText != "err\n" {
			t.Errorf("standard error: %q, want what the workload wrote", errText)
		}
	})

	// On two processors, whose clocks have to agree after the restore, too.
	t.Run("clones", func(t *testing.T) {
		h := &host{t, h.root}
		args := run("--rm", "--trace", "--accel", "kvm", "--cpus", "2", "box", "sh", "-c",
			"cat /proc/sys/kernel/random/boot_id; head -c 18 /dev/urandom | base64; sleep 1; date +%s; nproc")
		seen := map[string]bool{}
		for range 2 { // the first makes the template
			began := time.Now().Unix()
			out, trace, code := h.do(args...)
			now := time.Now().Unix()
			got := strings.Fields(out)
			if code != 0 || len(got) != 4 || !strings.Contains(trace, "QEMU goes on from the template") || strings.Contains(trace, "the machine boots") {
				t.Fatalf("status %d\n%s%s", code, out, trace)
			}
			if seen[got[0]] || seen[got[1]] {
				t.Errorf("a clone has the random numbers of another: %q", got)
			}
			seen[got[0]], seen[got[1]] = true, true
			// Without the host's time, the clone would still have its template's.
			if sec, err := strconv.ParseInt(got[2], 10, 64); err != nil || sec < began || sec > now+1 {
				t.Errorf("the clone says that it is %s, at a time between %d and %d", got[2], began, now)
			}
			if got[3] != "2" {
				t.Errorf("the clone has %s processors, want 2", got[3])
			}
		}
	})

	t.Run("background", func(t *testing.T) {
		h := &host{t, h.root}
		h.ok(run("-d", "--accel", "kvm", "--name", "work", "--cpus", "2", "box", "sh", "-c", "echo begun; trap 'echo ended; exit 3' TERM; while :; do sleep 1; done")...)
		defer h.do("rm", "-f", "work")
		vmm := vmms(t)
		if len(vmm) != 1 {
			t.Fatalf("processes with a virtual machine: %v, want one", vmm)
		}
		confined(t, vmm[0])
		if got := h.ok("exec", "work", "sh", "-c", "nproc; cat"); got != "2" {
			t.Errorf("exec printed %q, want the two processors", got)
		}
		if _, _, code := h.do("exec", "work", "sh", "-c", "exit 9"); code != 9 {
			t.Errorf("exec ended with %d, want 9", code)
		}
		h.ok("stop", "-t", "60", "work")
		if got := h.ok("logs", "work"); got != "begun\nended" {
			t.Errorf("logs %q, want begun and ended", got)
		}
		if got := h.ok("wait", "work"); got != "3" {
			t.Errorf("status %s, want 3", got)
		}
		h.ok("rm", "work")
		if left := vmms(t); len(left) > 0 {
			t.Errorf("processes with a virtual machine are left: %v", left)
		}
	})
}

// vmms are the processes that hold a virtual machine of KVM's.
func vmms(t *testing.T) (pids []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); to == "anon_inode:kvm-vm" {
			pids = append(pids, strings.Split(fd, "/")[2])
		}
	}
	return pids
}

// confined looks at the VMM; internal/qemu tests all of its confinement.
func confined(t *testing.T, pid string) {
	t.Helper()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"} {
		if !strings.Contains(string(status), line+"\n") {
			t.Errorf("the VMM lacks %q", line)
		}
	}
	if strings.Contains(string(status), "Uid:\t0") {
		t.Error("the VMM is root")
	}
}

// writeImage makes a root file system of busybox alone.
func writeImage(t *testing.T, name string) {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	headers := []tar.Header{
		{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755}, {Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(busybox))},
	}
	for _, applet := range []string{"sh", "cat", "echo", "sleep", "nproc", "head", "base64", "date"} {
		headers = append(headers, tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"})
	}
	var failed error
	for _, h := range headers {
		failed = errors.Join(failed, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write(busybox)
			failed = errors.Join(failed, err)
		}
	}
	failed = errors.Join(failed, w.Close(), os.WriteFile(name, b.Bytes(), 0o644))
	if failed != nil {
		t.Fatal(fmt.Errorf("make the image: %w", failed))
	}
}
