package container

import (
	"fmt"
	"math/bits"
	"strings"
)

// capabilityNames are the capabilities of capabilities(7) by number.
var capabilityNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// capSet is a set of capabilities, bit n for capability n.
type capSet uint64

// parseCaps reads names such as "CAP_NET_RAW". Unknown names are returned
// apart: the runtime spec wants them to be warned of, not to be fatal.
func parseCaps(names []string) (set capSet, unknown []string) {
	for _, name := range names {
		n, ok := capNumber(name)
		if !ok {
			unknown = append(unknown, name)
			continue
		}
		set |= 1 << n
	}
	return set, unknown
}

func capNumber(name string) (int, bool) {
	short, found := strings.CutPrefix(strings.ToUpper(name), "CAP_")
	if !found {
		return 0, false
	}
	for n, c := range capabilityNames {
		if c == short {
			return n, true
		}
	}
	return 0, false
}

// String lists the set by name.
func (s capSet) String() string {
	if s == 0 {
		return "none"
	}
	names := make([]string, 0, bits.OnesCount64(uint64(s)))
	for n := range 64 {
		if s&(1<<n) == 0 {
			continue
		}
		if n < len(capabilityNames) {
			names = append(names, "CAP_"+capabilityNames[n])
		} else {
			names = append(names, fmt.Sprintf("CAP_%d", n))
		}
	}
	return strings.Join(names, "|")
}

// KnownCapabilities lists every capability this program knows, as "CAP_…".
func KnownCapabilities() []string {
	out := make([]string, len(capabilityNames))
	for i, n := range capabilityNames {
		out[i] = "CAP_" + n
	}
	return out
}
