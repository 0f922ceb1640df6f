package container

import (
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestUnified: a raw cgroup setting is passed on, not dropped.
func TestUnified(t *testing.T) {
	kv := workload.UnifiedKV{Key: "memory.high", Value: "1000000"}
	r, err := resources(workload.Resources{Unified: []workload.UnifiedKV{kv}})
	if err != nil || r.Unified["memory.high"] != "1000000" {
		t.Errorf("got %v, %v", r, err)
	}
	_, err = resources(workload.Resources{Unified: []workload.UnifiedKV{kv, kv}})
	if err == nil || !strings.Contains(err.Error(), "given twice") {
		t.Errorf("got %v, want a setting that is given twice refused", err)
	}
}
