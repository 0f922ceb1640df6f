package qemu

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestEnded(t *testing.T) {
	const killed, sigsys, status1 = syscall.WaitStatus(9), syscall.WaitStatus(31), syscall.WaitStatus(1 << 8)
	for _, tt := range []struct {
		ws              syscall.WaitStatus
		reason, console string
		stderr          []string
		who             Party
		text            string
	}{
		{killed, "", "", nil, Host, "killed"},
		{sigsys, "", "", nil, VMM, "sandbox"},
		{status1, "", "", []string{"qemu-system-x86_64: bad option"}, VMM, "status 1: bad option"},
		{status1, "", "", []string{"qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory"}, Host, "want of something: unable to map"},
		{syscall.WaitStatus(5), "", "", []string{"(process:1): GLib-ERROR **: gmem.c:130: failed to allocate 4096 bytes", "more"}, Host, "failed to allocate 4096 bytes"},
		{syscall.WaitStatus(6), "", "", []string{"qemu: qemu_thread_create: Resource temporarily unavailable"}, Host, "thread_create"},
		{syscall.WaitStatus(6), "", "", []string{"qemu: something else"}, VMM, "died of aborted"},
		{status1, "", "", []string{"qemu-system-x86_64: Error loading uncompressed kernel without PVH ELF Note"}, Kernel, "PVH"},
		{0, "guest-reset", "a\nKernel panic - not syncing: VFS: no root\n", nil, Kernel, "VFS: no root"},
		{0, "guest-reset", "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n", nil, Agent, "exitcode"},
		{0, "guest-reset", "", nil, Kernel, "without a word"},
		{0, "guest-shutdown", "hello", nil, Agent, "ended itself"},
		{0, "host-qmp-quit", "hello", nil, Host, "told to quit"},
	} {
		who, text := ended(tt.ws, tt.reason, tt.console, tt.stderr)
		if who != tt.who || !strings.Contains(text, tt.text) {
			t.Errorf("%v %q %q: %s, %q; want %s, %q", tt.ws, tt.reason, tt.console, who, text, tt.who, tt.text)
		}
	}
}

func TestDiagnoseSilentGuest(t *testing.T) {
	m := start(t, config(t, code{}.hang()))
	if f := Diagnose(m); f.Who != Kernel || !strings.Contains(f.Text, "wrote nothing") {
		t.Errorf("%+v", f)
	}
}

func TestDiagnoseHostileConsole(t *testing.T) {
	m := start(t, config(t, code{}.stack().print("\x1b]0;owned\x07\x9bKernel panic - not syncing: \x1b[2Jx\r\n").reset()))
	<-m.Done()
	f := Diagnose(m)
	if f.Who != Kernel || f.Text != `Kernel panic - not syncing: \x1b[2Jx` {
		t.Errorf("%+v", f)
	}
	if want := `\x1b]0;owned\x07\x9bKernel panic - not syncing: \x1b[2Jx`; len(f.Console) != 1 || f.Console[0] != want {
		t.Errorf("console %q, want %q", f.Console, want)
	}
}

// TestDiagnoseKilled: whoever kills QEMU is on the host.
func TestDiagnoseKilled(t *testing.T) {
	m := start(t, config(t, code{}.hang()))
	if err := syscall.Kill(m.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if f := Diagnose(m); f.Who != Host {
		t.Errorf("%+v", f)
	}
	if _, err := m.Agent().Read(make([]byte, 1)); err == nil {
		t.Error("the agent's port can still be read")
	}
	if err := m.Stop(context.Background()); !errors.Is(err, ErrGone) {
		t.Errorf("stop: %v, want %v", err, ErrGone)
	}
}

// TestStartRefused: each start that cannot be fails with the reason, and leaves
// nothing.
func TestStartRefused(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	arm := filepath.Join(t.TempDir(), "arm")
	header := make([]byte, 64)
	copy(header, "\x7fELF\x02\x01\x01")
	header[16], header[18] = 2, 183
	for name, b := range map[string][]byte{text: []byte("hello"), arm: header} {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	noPVH := filepath.Join(t.TempDir(), "nopvh")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(noPVH, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"neither an ELF file nor a bzImage": func(c *Config) { c.Kernel = text },
		"built for AARCH64":                 func(c *Config) { c.Kernel = arm },
		"kernel: open /nonexistent":         func(c *Config) { c.Kernel = "/nonexistent" },
		"is not a regular file":             func(c *Config) { c.Kernel = "/dev/zero" },
		"kernel: QEMU cannot load":          func(c *Config) { c.Kernel = noPVH },
		"initramfs: open":                   func(c *Config) { c.Initramfs = "/nonexistent" },
		"disk data: open":                   func(c *Config) { c.Disks = []Disk{{Serial: "data", File: "/nonexistent"}} },
		"disk data: /dev/zero is not":       func(c *Config) { c.Disks = []Disk{{Serial: "data", File: "/dev/zero"}} },
		"QEMU could not be confined":        func(c *Config) { c.Dir = "/nonexistent" },
		"find QEMU":                         func(c *Config) { c.Binary = "/nonexistent" },
		"look at":                           func(c *Config) { c.Binary = text },
		"no cgroup today":                   func(c *Config) { c.Cgroup = noCgroup{} },
	} {
		t.Run(want, func(t *testing.T) {
			cfg := config(t, code{}.hang())
			change(&cfg)
			leakcheck.Check(t, leakcheck.Options{Paths: []string{cfg.Dir}, Files: true})
			m, err := Start(context.Background(), cfg)
			if err == nil {
				m.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

type noCgroup struct{}

func (noCgroup) Join() ([]*os.File, *os.File, error) { return nil, nil, errors.New("no cgroup today") }

func TestMissingAndOldQEMU(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := find("")
	if !errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "qemu-system-x86") {
		t.Errorf("missing: %v", err)
	}
	for v, old := range map[Version]bool{{7, 1, 99}: true, {6, 9, 0}: true, {7, 2, 0}: false, {8, 0, 0}: false, {10, 1, 0}: false} {
		if v.before(Oldest) != old {
			t.Errorf("%v: too old is %v, want %v", v, !old, old)
		}
	}
	if err := tooOld("6.2.0"); !errors.Is(err, workload.ErrUnsupported) || !strings.Contains(err.Error(), "7.2") {
		t.Errorf("too old: %v", err)
	}
}

// TestCancelledStart cancels at different times: the start ends soon, and
// nothing is left of it.
func TestCancelledStart(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, 6 * time.Millisecond, 10 * time.Millisecond, 15 * time.Millisecond, 25 * time.Millisecond, 40 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			cfg := config(t, code{}.hang())
			leakcheck.Check(t, leakcheck.Options{Paths: []string{cfg.Dir}, Files: true})
			ctx, cancel := context.WithTimeout(context.Background(), after)
			defer cancel()
			m, err := Start(ctx, cfg)
			if err == nil {
				m.Close()
				return
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
			}
		})
	}
}

// TestFlood: a guest that writes for ever costs the host 128 KiB.
func TestFlood(t *testing.T) {
	m := start(t, config(t, code{}.print("all work and no play ").flood()))
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		m.console.mu.Lock()
		total, held := m.console.total, cap(m.console.buf)
		m.console.mu.Unlock()
		if held > 4*ringSize {
			t.Fatalf("%d bytes held", held)
		}
		if total > 4*ringSize {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d bytes in 30 seconds", total)
		}
	}
	if n := len(m.Console()); n != ringSize {
		t.Errorf("%d bytes kept, want %d", n, ringSize)
	}
}

// TestDiesWithItsSupervisor kills the process that started QEMU.
func TestDiesWithItsSupervisor(t *testing.T) {
	if os.Getenv("QEMU_PARENT_DIR") != "" {
		cfg := config(t, code{}.stack().print("up").hang())
		m, err := Start(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(os.Getenv("QEMU_PARENT_DIR"), "pid"), []byte(itoa(m.Pid())), 0o600)
		select {}
	}
	testParentDeath(t)
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"hello\r\nworld\t\n": "hello\nworld\t\n", "\x1b[2J": `\x1b[2J`, "a\rb": `a\x0db`, "\xff": `\xff`, "\u202e": `\u202e`, "ü\x00": `ü\x00`,
	} {
		if got := Printable([]byte(in)); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
	if got := lastLines("a\n\nb\n  \nc\n", 2); !bytes.Equal([]byte(strings.Join(got, "|")), []byte("b|c")) {
		t.Errorf("last lines %q", got)
	}
}

// TestLongLines: a guest that ends no line does not fill records and screens.
func TestLongLines(t *testing.T) {
	got := lastLines(strings.Repeat("é", ringSize)+"\nend", 2)
	if len(got) != 2 || got[1] != "end" || len(got[0]) > maxLine+len("…") || !utf8.ValidString(got[0]) {
		t.Errorf("got %.100q… of %d bytes", got, len(got[0]))
	}
}
