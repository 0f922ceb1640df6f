package cgroup

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestHelperLimits: what the machine has is limited, swap with memory, and nothing
// is asked for that it has not.
func TestHelperLimits(t *testing.T) {
	const memory, tasks = 64 << 20, 16
	for _, tt := range []struct {
		name       string
		f          Features
		limit, all int64 // of memory, of memory and swap; 0: none
		tasks      int64
	}{
		{"everything", Features{Controllers: []string{"cpu", "memory", "pids"}, Swap: true}, memory, 2 * memory, tasks},
		{"swap not accounted", Features{Controllers: []string{"memory", "pids"}}, memory, 0, tasks},
		{"no pids", Features{Controllers: []string{"memory"}, Swap: true}, memory, 2 * memory, 0},
		{"no memory", Features{Controllers: []string{"pids"}}, 0, 0, tasks},
		{"none", Features{}, 0, 0, 0},
	} {
		r := tt.f.Helper(memory, tasks)
		m, p := r.Memory, r.Pids
		if m == nil {
			m = &specs.LinuxMemory{}
		}
		if p == nil {
			p = &specs.LinuxPids{}
		}
		if value(m.Limit) != tt.limit || value(m.Swap) != tt.all || value(p.Limit) != tt.tasks {
			t.Errorf("%s: %d bytes of memory, %d with swap, %d tasks; want %d, %d, %d",
				tt.name, value(m.Limit), value(m.Swap), value(p.Limit), tt.limit, tt.all, tt.tasks)
		}
	}
}
