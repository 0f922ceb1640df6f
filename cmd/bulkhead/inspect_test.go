package main

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
)

// TestInspectEmulation: whoever looks at a workload sees that what isolates it
// is not meant to.
func TestInspectEmulation(t *testing.T) {
	for accel, want := range map[qemu.Accel]int{qemu.TCG: 1, qemu.KVM: 0} {
		v := newInspectView(&engine.Record{Machine: &boundary.Machine{Accel: string(accel)}})
		if len(v.Warnings) != want || want == 1 && v.Warnings[0] != qemu.NoBoundary {
			t.Errorf("%s: got %q, want %d", accel, v.Warnings, want)
		}
	}
	if v := newInspectView(&engine.Record{}); len(v.Warnings) != 0 {
		t.Errorf("without a machine: %q", v.Warnings)
	}
}
