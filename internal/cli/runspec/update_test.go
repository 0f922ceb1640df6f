package runspec

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestUpdateSuits refuses what would be recorded and never be in force.
func TestUpdateSuits(t *testing.T) {
	system := workload.Spec{Boundary: "vm", VM: workload.VM{System: true}}
	machine := workload.Spec{Boundary: "vm"}
	for _, tt := range []struct {
		flag string
		set  func(*ResourceFlags)
		spec workload.Spec
		ok   bool
	}{
		{"pids-limit", func(f *ResourceFlags) { f.PidsLimit = 100 }, system, false},
		{"pids-limit", func(f *ResourceFlags) { f.PidsLimit = 100 }, machine, true},
		{"memory-reservation", func(f *ResourceFlags) { f.MemoryReservation = "64m" }, system, false},
		{"memory-reservation", func(f *ResourceFlags) { f.MemoryReservation = "64m" }, machine, true},
		{"memory", func(f *ResourceFlags) { f.Memory = "512m" }, system, true},
		{"cpuset-cpus", func(f *ResourceFlags) { f.CpusetCPUs = "0" }, machine, false},
	} {
		var o UpdateOptions
		tt.set(&o.Resources)
		u, err := o.Check(Host{CPUs: 4}, func(flag string) bool { return flag == tt.flag })
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Suits(&tt.spec); (err == nil) != tt.ok {
			t.Errorf("--%s, a whole system %t: got %v", tt.flag, tt.spec.VM.System, err)
		}
	}
}
