package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel"
)

// Hostile is Machine with an agent that misbehaves in one way, from the start or
// when a workload's program asks for it by its name: command hostile below this
// package has the list.
func Hostile(t testing.TB, mode string) boundary.Machine {
	t.Helper()
	m := Machine(t)
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	agent := filepath.Join(dir, "agent")
	cmd := exec.Command("go", "build", "-ldflags", "-X main.mode="+mode, "-o", agent, "./internal/boundary/vm/vmtest/hostile")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the hostile agent: %v: %s", err, out)
	}
	// The kernels of the cache, but an initramfs that goes with the test.
	cache, err := Cache()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "kernels"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"store", "default"} {
		if err := os.Symlink(filepath.Join(cache, "kernels", name), filepath.Join(dir, "kernels", name)); err != nil {
			t.Fatal(err)
		}
	}
	store, err := kernel.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	k, err := store.Resolve(t.Context(), os.Getenv(KernelVariable), kernel.Wanted{
		Agent: agent, Init: filepath.Join(filepath.Dir(m.FileServer), "bulkhead-init"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Initramfs = k.Initramfs
	return m
}
