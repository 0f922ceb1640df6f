package boundarytest

import (
	"os"
	"os/exec"
	"testing"
)

// BuildProgram puts the suite's program at name. The test guest has no Go, but
// has the program.
func BuildProgram(t testing.TB, name string) {
	t.Helper()
	if built, err := exec.LookPath("program"); err == nil && os.Getenv("BULKHEAD_GUEST") != "" {
		b, err := os.ReadFile(built)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o755); err != nil {
			t.Fatal(err)
		}
		return
	}
	cmd := exec.Command("go", "build", "-o", name,
		"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the suite's program: %v: %s", err, out)
	}
}
