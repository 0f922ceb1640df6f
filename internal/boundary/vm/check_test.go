package vm

import (
	"errors"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestRefused asks for each thing that a guest cannot be given.
func TestRefused(t *testing.T) {
	for name, ask := range map[string]func(*workload.Spec){
		"network":       func(s *workload.Spec) { s.Network = "host" },
		"processes":     func(s *workload.Spec) { s.Namespaces.HostPID = true },
		"IPC":           func(s *workload.Spec) { s.Namespaces.HostIPC = true },
		"name":          func(s *workload.Spec) { s.Namespaces.HostUTS = true },
		"device":        func(s *workload.Spec) { s.Devices = []workload.Device{{Source: "/dev/null"}} },
		"AppArmor":      func(s *workload.Spec) { s.Security.AppArmor = "mine" },
		"I/O weight":    func(s *workload.Spec) { s.Resources.IOWeight = 100 },
		"I/O limit":     func(s *workload.Spec) { s.Resources.IOLimits = []workload.IOLimit{{Device: "/dev/sda", ReadBPS: 1}} },
		"processors":    func(s *workload.Spec) { s.Resources.CpusetCPUs = "0" },
		"memory nodes":  func(s *workload.Spec) { s.Resources.CpusetMems = "0" },
		"cgroup values": func(s *workload.Spec) { s.Resources.Unified = []workload.UnifiedKV{{Key: "memory.high", Value: "1"}} },
	} {
		for _, tenant := range []string{"", "test"} {
			s := workload.Spec{ID: workload.NewID(), VM: workload.VM{Tenant: tenant}}
			ask(&s)
			p := boundary.Prepared{Dir: t.TempDir(), Machine: &boundary.Machine{}}
			b := Boundary{Reach: func(string) boundary.Host { panic("not asked before") }}
			if _, err := b.Create(t.Context(), s, p); !errors.Is(err, workload.ErrUnsupported) {
				t.Errorf("%s, tenant %q: got %v, want %v", name, tenant, err, workload.ErrUnsupported)
			}
		}
	}
	s := workload.Spec{Network: "none", Security: workload.Security{AppArmor: "unconfined"}}
	if err := check(s); err != nil {
		t.Errorf("nothing that is refused: %v", err)
	}
}
