package gvisor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// sysctls are the kernel parameters that gVisor looks at; it passes over others.
var sysctls = []string{"fs.nr_open", "net.ipv6.conf.all.disable_ipv6"}

// rlimits are the limits of a process that gVisor keeps for programs to ask for and
// never looks at.
var rlimits = []string{"RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING"}

// check refuses what names a part of the host's kernel, which the sandbox has
// none of, and what gVisor passes over: whoever asks for it would get something
// else, or nothing, without a word.
func check(s workload.Spec) error {
	for _, f := range []struct {
		what  string
		asked bool
	}{
		{"the host's network", s.Network == workload.NetworkHost},
		{"the host's process namespace", s.Namespaces.HostPID},
		{"the host's IPC namespace", s.Namespaces.HostIPC},
		{"the host's name", s.Namespaces.HostUTS},
		{"devices of the host", len(s.Devices) > 0},
		{"an AppArmor profile", s.Security.AppArmor != "" && s.Security.AppArmor != "unconfined"},
		{"reports of denied system calls", s.Security.SeccompReport},
	} {
		if f.asked {
			return fmt.Errorf("%w: %s behind gvisor, which has a kernel of its own", workload.ErrUnsupported, f.what)
		}
	}
	for name := range s.Security.Sysctls {
		if !slices.Contains(sysctls, name) {
			return fmt.Errorf("%w: --sysctl %s behind gvisor, which has a kernel of its own without that parameter", workload.ErrUnsupported, name)
		}
	}
	for _, l := range s.Process.Rlimits {
		if slices.Contains(rlimits, l.Type) {
			name := strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_"))
			return fmt.Errorf("%w: --ulimit %s behind gvisor, which never looks at that limit", workload.ErrUnsupported, name)
		}
	}
	return nil
}
