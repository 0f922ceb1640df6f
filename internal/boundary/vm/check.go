package vm

import (
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// check refuses what names a part of the host's kernel, which no guest has, and
// what would be applied to the guest's instead: whoever asks for it would get
// something else, or nothing, without a word.
func check(s workload.Spec) error {
	r := s.Resources
	for _, f := range []struct {
		what  string
		asked bool
	}{
		{"the host's network", s.Network == "host"},
		{"the host's process namespace", s.Namespaces.HostPID},
		{"the host's IPC namespace", s.Namespaces.HostIPC},
		{"the host's name", s.Namespaces.HostUTS},
		{"devices of the host", len(s.Devices) > 0},
		{"an AppArmor profile", s.Security.AppArmor != "" && s.Security.AppArmor != "unconfined"},
		{"a share or limit of the host's block devices", r.IOWeight != 0 || len(r.IOLimits) > 0},
		{"the choice of the host's processors or memory nodes", r.CpusetCPUs != "" || r.CpusetMems != ""},
		{"raw cgroup settings", len(r.Unified) > 0},
	} {
		if f.asked {
			return fmt.Errorf("%w: %s in a virtual machine, which has a kernel of its own", workload.ErrUnsupported, f.what)
		}
	}
	return nil
}
