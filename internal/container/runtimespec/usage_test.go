package runtimespec

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestUpdateMissing changes a limit for which the kernel has no file: that is not the
// end of the workload, for which whoever asks would wait.
func TestUpdateMissing(t *testing.T) {
	lay := &cgroup.Layout{Mode: cgroup.ModeV2, V2: t.TempDir(), V2Controllers: []string{"cpuset"}}
	dir := filepath.Join(lay.V2, "above", "w")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := cgroup.Load("/above/w", cgroup.Options{Layout: lay})
	if err != nil {
		t.Fatal(err)
	}
	r := workload.Resources{CpusetCPUs: "0"}
	if err := Update(m, r); err == nil || errors.Is(err, workload.ErrNotRunning) {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := Update(m, r); !errors.Is(err, workload.ErrNotRunning) {
		t.Errorf("without a cgroup: got %v, want %v", err, workload.ErrNotRunning)
	}
}
