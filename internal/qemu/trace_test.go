package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch/launchtest"
)

// TestTrace runs a start under strace(1): every actor makes the system calls
// that the program says, in its order, and no other.
func TestTrace(t *testing.T) {
	config(t, nil) // skips where no machine can be
	dir := t.TempDir()
	trace, programs := filepath.Join(dir, "trace"), filepath.Join(dir, "programs")
	launchtest.Trace(t, trace, "TestTraced", "TRACED_PROGRAMS="+programs)
	launchtest.Check(t, trace, programs, 1)
}

// TestTraced is what TestTrace traces.
func TestTraced(t *testing.T) {
	programs := os.Getenv("TRACED_PROGRAMS")
	if programs == "" {
		t.Skip("runs under TestTrace only")
	}
	cfg := config(t, code{}.stack().reset())
	cfg.Disks = []Disk{{Serial: "data", File: image(t, "")}}
	cfg.withDefaults()
	var err error
	if cfg.Binary, err = find(""); err != nil {
		t.Fatal(err)
	}
	s := &starter{cfg: cfg}
	defer s.release()
	p, err := s.prepare()
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.prog.Run(t.Context(), launch.Options{Child: p.child})
	if err != nil {
		t.Fatal(err)
	}
	if ws, err := r.Wait(); err != nil || ws.ExitStatus() != 0 {
		t.Fatalf("QEMU ended with %v, %v", ws, err)
	}
	launchtest.Write(t, programs, launchtest.Of(p.prog, r.Value(p.stage), r.Value(p.status)))
}
