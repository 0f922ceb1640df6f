package runspec

import (
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
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

// TestUpdateSwap: memory and swap together stay twice the memory, but where somebody
// said what they are.
func TestUpdateSwap(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name      string
		boundary  string
		had, swap int64 // before; 0 for none
		accounted bool
		flag      string // --memory-swap
		want      int64  // 0 for as it is
	}{
		{"the default", "container", 64, 128, true, "", 512},
		{"none before", "container", 0, 0, true, "", 512},
		{"memory alone before", "gvisor", 64, 0, true, "", 512},
		{"no swap was wanted", "container", 64, 64, true, "", 0},
		{"unlimited swap was wanted", "container", 64, -1, true, "", 0},
		{"named", "container", 64, 128, true, "256m", 256},
		{"not accounted", "container", 64, 0, false, "", 0},
		{"a guest", "vm", 64, 0, true, "", 0},
	} {
		host := Host{CPUs: 4, Cgroups: func() (cgroup.Features, error) { return cgroup.Features{Swap: tt.accounted}, nil }}
		s := workload.Spec{Boundary: tt.boundary}
		if tt.had != 0 {
			s.Resources.Memory = ptr(tt.had * mib)
		}
		switch {
		case tt.swap > 0:
			s.Resources.MemorySwap = ptr(tt.swap * mib)
		case tt.swap < 0:
			s.Resources.MemorySwap = ptr(tt.swap)
		}
		o := UpdateOptions{Resources: ResourceFlags{Memory: "256m", MemorySwap: tt.flag}}
		u, err := o.Check(host, func(string) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		r, err := u.For(&s, host)
		if err != nil {
			t.Fatal(err)
		}
		var got int64
		if r.MemorySwap != nil {
			got = *r.MemorySwap / mib
		}
		if got != tt.want || *r.Memory != 256*mib {
			t.Errorf("%s: %d MiB of memory and swap, want %d", tt.name, got, tt.want)
		}
	}
}
