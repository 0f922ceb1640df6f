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

// TestMachineMemory: the guest's memory is the workload's and the guest's own, and
// the host's limit is above it.
func TestMachineMemory(t *testing.T) {
	for _, c := range []struct{ memory, ram int64 }{
		{0, 512 + 8 + 160}, // none given
		{1, 160 + 1},
		{64 * mib, 64 + 1 + 160},
		{4096 * mib, 4096 + 64 + 160},
	} {
		s := workload.Spec{}
		if c.memory != 0 {
			s.Resources.Memory = &c.memory
		}
		z, err := sizeOf(s, qemu.TCG, false)
		if err != nil || z.ram != c.ram*mib || z.total <= z.ram {
			t.Errorf("%d bytes: got %d MiB of %d, %v, want %d", c.memory, z.ram/mib, z.total/mib, err, c.ram)
		}
	}
	for _, memory := range []int64{-1, maxMemory + 1} {
		if _, err := sizeOf(workload.Spec{Resources: workload.Resources{Memory: &memory}}, qemu.TCG, false); err == nil {
			t.Errorf("%d bytes were taken", memory)
		}
	}
}
