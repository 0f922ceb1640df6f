package qemu

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// testID is the user that QEMU runs as in tests.
const testID = 1879048191

// config is a small machine with a guest of a few instructions.
func config(t testing.TB, c code) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := find(""); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return Config{Kernel: kernel(t, c), CPUs: 1, Memory: 32 * mib, IDBase: testID, Dir: dir}
}

// start starts a machine that ends with the test.
func start(t testing.TB, cfg Config) *Machine {
	t.Helper()
	leakcheck.Check(t, leakcheck.Options{Paths: []string{cfg.Dir}, Files: true})
	m, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// console waits until the guest has written text.
func console(t testing.TB, m *Machine, text string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(string(m.Console()), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the guest never wrote %q; console %q, QEMU said %q", text, m.Console(), m.Stderr())
		}
	}
}

// wait returns how QEMU ended.
func wait(ctx context.Context, m *Machine) (unix.WaitStatus, error) {
	select {
	case <-m.Done():
		return m.running.Wait()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// processorsRun asks QEMU whether the guest's processors run.
func processorsRun(ctx context.Context, m *Machine) (bool, error) {
	b, err := m.qmp.do(ctx, "query-status", nil)
	if err != nil {
		return false, err
	}
	var s struct{ Running bool }
	err = json.Unmarshal(b, &s)
	return s.Running, err
}

func TestGuestRunsAndEnds(t *testing.T) {
	for _, machine := range []MachineType{MicroVM, Q35} {
		t.Run(string(machine), func(t *testing.T) {
			cfg := config(t, code{}.stack().print("hello\n").reset())
			cfg.Machine = machine
			m := start(t, cfg)
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			ws, err := wait(ctx, m)
			if err != nil || ws != 0 {
				t.Fatalf("QEMU ended with %v, %v: %s", ws, err, m.Stderr())
			}
			if got := string(m.Console()); got != "hello\n" {
				t.Errorf("console %q, want hello", got)
			}
			if got := string(m.Stderr()); got != "" {
				t.Errorf("QEMU said %q", got)
			}
		})
	}
}

// TestEnding: when a machine has ended, it is known why.
func TestEnding(t *testing.T) {
	// QEMU tells of nothing before the host has spoken to it.
	later := code{}.stack()
	later = append(later, 0xb9, 0x00, 0x00, 0x00, 0x20, 0xe2, 0xfe) // mov ecx, 0x20000000; loop to itself
	m := start(t, config(t, later.reset()))
	m.mu.Lock() // who reads what QEMU says is slow
	m.running.Wait()
	select {
	case <-m.Done():
		t.Error("it has ended, and why has not been read")
	case <-time.After(time.Second / 4):
	}
	m.mu.Unlock()
	<-m.Done()
	if got := m.Ending(); got != Restarted {
		t.Errorf("it ended as %d, want a restart", got)
	}
}
