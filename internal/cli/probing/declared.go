package probing

import (
	"fmt"
	"path"
	"runtime"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe/gate"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Declared is what s asks for, in the prober's words. It is made before the
// prober itself becomes a part of s.
func Declared(s workload.Spec) *probe.Declared {
	d := &probe.Declared{
		Boundary: s.Boundary, OwnKernel: s.Boundary == "vm" || s.Boundary == "gvisor", ReadOnlyRoot: s.ReadOnlyRoot,
		NoNetwork: s.Network == workload.NetworkNone, Terminal: s.Process.Terminal, CPUs: s.Resources.CPUs, Shm: s.Resources.ShmSize,
	}
	for _, w := range s.Weakenings() {
		d.Options = append(d.Options, w.Flag)
	}
	for _, m := range s.Mounts {
		if m.Type == "bind" {
			d.Binds = append(d.Binds, probe.Bind{Source: m.Source, Target: path.Clean(m.Target), System: probe.SystemDirectory(m.Source)})
		}
	}
	for _, l := range []struct{ to, from *int64 }{{&d.Memory, s.Resources.Memory}, {&d.Swap, s.Resources.MemorySwap}, {&d.Pids, s.Resources.Pids}} {
		if l.from != nil {
			*l.to = *l.from
		}
	}
	for _, l := range s.Process.Rlimits {
		if l.Type == "RLIMIT_NOFILE" {
			d.Files = l.Hard
		}
	}
	return d
}

// auditArch are the architectures as filters see them, linux/audit.h.
var auditArch = map[string]uint32{"amd64": 0xc000003e, "arm64": 0xc00000b7}

// passes are the system calls that the default filter lets pass for s on a kernel:
// what a workload must not go beyond.
func passes(s workload.Spec, release string) (string, error) {
	caps, err := runtimespec.Capabilities(s.Security)
	if err != nil {
		return "", err
	}
	version, err := seccomp.ParseKernelVersion(release)
	if err != nil {
		return "", err
	}
	profile, err := seccomp.Default(seccomp.Conditions{Caps: caps, Kernel: version})
	if err != nil {
		return "", err
	}
	filter, err := seccomp.Compile(profile)
	if err != nil {
		return "", err
	}
	var numbers []string
	for n := range uint32(gate.Last + 1) {
		v, err := filter.Run(seccomp.Data{NR: n, Arch: auditArch[runtime.GOARCH]})
		if err != nil {
			return "", err
		}
		if a := v.Action(); a == seccomp.Allow || a == seccomp.Log {
			numbers = append(numbers, fmt.Sprint(n))
		}
	}
	return strings.Join(numbers, ","), nil
}
