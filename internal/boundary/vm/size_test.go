package vm

import (
	"context"
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
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
	if w := z.shares(s).CPU.Shares; w == nil || *w != 512 {
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

// TestMachineSwap: what a VMM may have of the host's swap ends somewhere.
func TestMachineSwap(t *testing.T) {
	has, err := cgroup.Probe(cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := workload.Spec{}
	z, err := sizeOf(s, qemu.TCG, false)
	if err != nil {
		t.Fatal(err)
	}
	limits, err := z.limits(s)
	if err != nil {
		t.Fatal(err)
	}
	want := 2 * z.total
	switch swap := limits.Memory.Swap; {
	case has.Swap && (swap == nil || *swap != want):
		t.Errorf("swap is accounted: got a limit of %v, want %d bytes", swap, want)
	case !has.Swap && swap != nil:
		t.Errorf("swap is not accounted: got a limit of %d bytes, which no machine would start with", *swap)
	}
	if !has.Swap || os.Geteuid() != 0 {
		return
	}
	boundarytest.RemoveCgroup(t, testCgroup)
	m, err := z.group(testCgroup+"/swap", s)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Create(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	st, err := m.Stats()
	if err != nil || st.Memory.SwapLimit != uint64(want) {
		t.Errorf("in force: %d bytes of memory and swap, %v, want %d", st.Memory.SwapLimit, err, want)
	}
}
