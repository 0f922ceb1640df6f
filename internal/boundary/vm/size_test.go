package vm

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestCPUWeight: a weight counts once, between those that share processors:
// machines on the host, or the workloads of a tenant in its guest.
func TestCPUWeight(t *testing.T) {
	s := workload.Spec{Resources: workload.Resources{CPUWeight: 512}}
	z, err := sizeOf(s, qemu.TCG, false)
	if err != nil {
		t.Fatal(err)
	}
	if w := z.limits(s).CPU.Shares; w == nil || *w != 512 {
		t.Errorf("of the machine: %v, want 512", w)
	}
	if w := inside(s).Resources.CPUWeight; w != 0 {
		t.Errorf("in a machine of its own: %d, want 0", w)
	}
	s.VM.Tenant = "test"
	if w := inside(s).Resources.CPUWeight; w != 512 {
		t.Errorf("in a tenant's machine: %d, want 512", w)
	}
}
