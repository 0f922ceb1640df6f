package vm

import (
	"bytes"
	"context"
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

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// slow skips a test that boots several machines in the quick tier.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines for minutes")
	}
}

// program is the spec of a workload that runs the suite's program.
func program(args ...string) workload.Spec {
	return workload.Spec{
		ID: workload.NewID(), Boundary: "vm", Hostname: "box", Network: "none", Created: time.Now(), AutoRemove: true,
		Process:    workload.Process{Args: append([]string{"/bin/program"}, args...), Cwd: "/", User: "0:0", Env: []string{"PATH=/bin"}},
		StopSignal: "SIGTERM", StopTimeout: time.Second,
	}
}

// guard watches for leaks of a test. The library that puts limits in force
// opens /sys/fs/cgroup when it is first used, and keeps it as long as the process
// lives: that comes before.
func guard(t *testing.T) {
	t.Helper()
	boundarytest.RemoveCgroup(t, testCgroup)
	pids := int64(1)
	cg, err := cgroup.New(testCgroup+"/first", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}, cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cg.Create(), cg.Destroy(t.Context())); err != nil {
		t.Fatal(err)
	}
	leakcheck.Check(t, leakcheck.Options{Cgroups: []string{testCgroup}, Wait: 10 * time.Second})
}

// create makes a workload that must not fail, and removes it with the test.
func (f *fixture) create(t *testing.T, b Boundary, s workload.Spec) boundary.Instance {
	t.Helper()
	in, err := b.Create(t.Context(), s, f.prepare(t, s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Delete(context.Background()); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	return in
}

// neighbour runs a healthy workload in a machine of its own, and makes sure
// when the test is over that nothing happened to it.
func (f *fixture) neighbour(t *testing.T) {
	t.Helper()
	in := f.create(t, Boundary{}, program("pause"))
	if err := in.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		p, err := in.Exec(ctx, workload.Process{Args: []string{"/bin/program", "exit", "3"}, Cwd: "/", User: "0:0"}, boundary.Stdio{})
		if err != nil {
			t.Errorf("the neighbour: %v", err)
			return
		}
		if exit, err := p.Wait(ctx); err != nil || exit.Code != 3 {
			t.Errorf("the neighbour: %+v, %v", exit, err)
		}
	})
}

// wantFault checks who is at fault, and that the error is fit for a terminal
// and not longer than what a person reads.
func wantFault(t *testing.T, err error, who qemu.Party, text string) {
	t.Helper()
	var f *qemu.Fault
	switch {
	case err == nil:
		t.Error("no error")
		return
	case !errors.As(err, &f):
		t.Errorf("nobody is at fault: %v", err)
	case f.Who != who || !strings.Contains(f.Text, text):
		t.Errorf("%s is at fault: %q; want %s, %q", f.Who, f.Text, who, text)
	}
	if n := len(err.Error()); n > 16<<10 || strings.ContainsAny(err.Error(), "\x1b\x07") {
		t.Errorf("an error of %d bytes, or not fit for a terminal: %q", n, err.Error()[:min(n, 2000)])
	}
}

// changed copies a file and lets f change its bytes.
func changed(t *testing.T, name string, f func([]byte) []byte) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "changed")
	if err := os.WriteFile(to, f(b), 0o644); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestBootFaults: each start that does not come up ends in time, says who is at
// fault, leaves nothing and touches no other machine.
func TestBootFaults(t *testing.T) {
	slow(t)
	f := newFixture(t)
	// A kernel that has not come to its first program is at fault itself, so the
	// limit is well above what one takes on this machine, as busy as it is.
	booting := time.Now()
	f.neighbour(t)
	short := 20*time.Second + 3*time.Since(booting)
	tests := map[string]struct {
		mode    string // of the hostile agent
		change  func(t *testing.T, m *boundary.Machine)
		timeout time.Duration
		who     qemu.Party
		text    string
	}{
		"the kernel panics":            {mode: "panic", who: qemu.Kernel, text: "Kernel panic - not syncing: sysrq triggered crash"},
		"the first process ends":       {mode: "exit", who: qemu.Agent, text: "Attempted to kill init"},
		"the agent ends":               {mode: "dies", who: qemu.Agent, text: "the guest ended itself"},
		"the agent says nothing":       {mode: "silent", timeout: short, who: qemu.Agent, text: "does not answer"},
		"the agent floods the console": {mode: "chatter", timeout: short, who: qemu.Agent, text: "does not answer"},
		"the agent speaks nonsense":    {mode: "nonsense", who: qemu.Agent, text: "does not speak as it should"},
		"the agent answers nothing":    {mode: "deaf", who: qemu.Agent, text: "does not answer any more"},
		"the initramfs is damaged": {who: qemu.Kernel, text: "Kernel panic", change: func(t *testing.T, m *boundary.Machine) {
			m.Initramfs = changed(t, m.Initramfs, func(b []byte) []byte { return b[:len(b)/3] })
		}},
		"the kernel is damaged": {timeout: short, who: qemu.Kernel, change: func(t *testing.T, m *boundary.Machine) {
			m.Kernel = changed(t, m.Kernel, func(b []byte) []byte {
				clear(b[4*mib : 8*mib]) // code
				return b
			})
		}},
		"the kernel has no entry": {who: qemu.Kernel, text: "QEMU cannot load the kernel's image", change: func(t *testing.T, m *boundary.Machine) {
			m.Kernel = changed(t, m.Kernel, func(b []byte) []byte {
				clear(b[len(b)/8 : len(b)/8*5]) // its notes, too
				return b
			})
		}},
		"the kernel is cut short": {who: qemu.Kernel, text: "QEMU cannot load the kernel's image", change: func(t *testing.T, m *boundary.Machine) {
			m.Kernel = changed(t, m.Kernel, func(b []byte) []byte { return b[:len(b)/2] })
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := f.machine
			if tt.mode != "" {
				m = vmtest.Hostile(t, tt.mode)
			}
			if tt.change != nil {
				tt.change(t, &m)
			}
			guard(t)
			s := program("pause")
			p := f.prepare(t, s)
			m.Image, m.Data = p.Machine.Image, p.Machine.Data
			p.Machine = &m
			began := time.Now()
			in, err := Boundary{BootTimeout: tt.timeout}.Create(t.Context(), s, p)
			if err == nil {
				in.Delete(t.Context())
			}
			wantFault(t, err, tt.who, tt.text)
			if d := time.Since(began); tt.timeout != 0 && d > tt.timeout+20*time.Second {
				t.Errorf("it took %v, the limit was %v", d, tt.timeout)
			}
			t.Log(err)
		})
	}
}

// TestLaterFaults: a machine that ends while its workload runs says why, and
// what it was is cleaned up.
func TestLaterFaults(t *testing.T) {
	slow(t)
	f := newFixture(t)
	f.neighbour(t)
	hostile := vmtest.Hostile(t, "later")
	f.machine.Initramfs = hostile.Initramfs
	tests := map[string]struct {
		program string
		host    func(i *instance) error
		who     qemu.Party
		text    string
	}{
		"the kernel panics": {program: "/bin/do-panic", who: qemu.Kernel, text: "sysrq triggered crash"},
		"the agent ends":    {program: "/bin/do-exit", who: qemu.Agent, text: "the guest ended itself"},
		"somebody kills it": {program: "/bin/program", who: qemu.Host, text: "QEMU was killed", host: func(i *instance) error { return syscall.Kill(i.PID(), syscall.SIGKILL) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			guard(t)
			s := program("pause")
			s.Process.Args[0] = tt.program
			in := f.create(t, Boundary{}, s)
			if err := in.Start(t.Context()); err != nil {
				wantFault(t, err, tt.who, tt.text) // it ended before it could answer
			}
			if tt.host != nil {
				if err := tt.host(in.(*instance)); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			exit, err := in.Wait(ctx)
			t.Logf("%+v, %v", exit, err)
			wantFault(t, err, tt.who, tt.text)
			if !errors.Is(err, client.ErrGuestLost) {
				t.Errorf("not a guest that was lost: %v", err)
			}
			if _, err := in.Exec(ctx, s.Process, boundary.Stdio{}); err == nil {
				t.Error("exec in a machine that is gone: no error")
			}
		})
	}
}

// TestConsoleFloodLater: a guest that floods its console while its workload runs
// is as usable as before, and costs the host a bounded ring.
func TestConsoleFloodLater(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	f.machine.Initramfs = vmtest.Hostile(t, "later").Initramfs
	s := program("pause")
	s.Process.Args[0] = "/bin/do-chatter"
	in := f.create(t, Boundary{}, s)
	if err := in.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for range 5 {
		p, err := in.Exec(ctx, workload.Process{Args: []string{"/bin/program", "exit", "3"}, Cwd: "/", User: "0:0"}, boundary.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		if exit, err := p.Wait(ctx); err != nil || exit.Code != 3 {
			t.Errorf("%+v, %v", exit, err)
		}
	}
	console := in.(*instance).machine.vmm.Console()
	if !bytes.Contains(console, []byte("all work and no play")) || len(console) > 64<<10 {
		t.Errorf("%d bytes of the console are kept: %q", len(console), console[:min(len(console), 100)])
	}
}

// TestManyAtOnce starts twenty small machines at once.
func TestManyAtOnce(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	memory := int64(16 * mib)
	type prepared struct {
		s workload.Spec
		p boundary.Prepared
	}
	var all []prepared
	for range 20 {
		s := program("exit", "3")
		s.Resources.Memory = &memory
		p := f.prepare(t, s)
		r, err := f.pool.Allocate(string(s.ID), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		p.IDBase, p.IDCount = r.Base, r.Count
		all = append(all, prepared{s, p})
	}
	var wg sync.WaitGroup
	for _, one := range all {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
			defer cancel()
			in, err := Boundary{BootTimeout: 6 * time.Minute}.Create(ctx, one.s, one.p)
			if err != nil {
				t.Error(err)
				return
			}
			if err := in.Start(ctx); err != nil {
				t.Error(err)
			} else if exit, err := in.Wait(ctx); err != nil || exit.Code != 3 {
				t.Errorf("%+v, %v", exit, err)
			}
			if err := in.Delete(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestOldQEMU: one that is too old is refused with the version that is needed.
func TestOldQEMU(t *testing.T) {
	f := newFixture(t)
	guard(t)
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "qemu-system-x86_64"), "./vmtest/oldqemu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build an old QEMU: %v: %s", err, out)
	}
	s := program("pause")
	p := f.prepare(t, s)
	t.Setenv("PATH", dir)
	in, err := Boundary{}.Create(t.Context(), s, p)
	if err == nil {
		in.Delete(t.Context())
	}
	wantFault(t, err, qemu.Host, fmt.Sprintf("QEMU 5.2.0 is too old: version %d.%d or later is needed", qemu.Oldest.Major, qemu.Oldest.Minor))
	if !errors.Is(err, workload.ErrUnsupported) {
		t.Errorf("not unsupported: %v", err)
	}
}
