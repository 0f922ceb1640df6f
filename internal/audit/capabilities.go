package audit

import (
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// capabilities of Linux 6.18, in the kernel's order (linux/capability.h).
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// dangerous are the capabilities that lead out of a container on a shared kernel,
// what each opens there, and how bad it is where the workload has a user namespace
// of its own, in which most of them count for nothing beyond it.
var dangerous = []struct {
	name             string
	severity, mapped report.Severity
	opens            string
}{
	{"CAP_SYS_ADMIN", report.Critical, report.High, "mounts, namespaces and hundreds of other interfaces, of which several lead to the host in one step"},
	{"CAP_SYS_MODULE", report.Critical, report.Medium, "loads code into the kernel"},
	{"CAP_SYS_RAWIO", report.Critical, report.Medium, "reads and writes physical memory and ports"},
	{"CAP_DAC_READ_SEARCH", report.Critical, report.Medium, "opens every file of the file system by handle, outside the workload's root too"},
	{"CAP_SYS_PTRACE", report.High, report.Medium, "reads and changes the memory of every process that it sees"},
	{"CAP_BPF", report.High, report.Medium, "loads programs into the kernel, past its verifier's known faults"},
}

// usual are the capabilities that engines give and Pod Security Standards allow
// (profile "baseline").
var usual = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// dockerCaps are what Docker gives when nothing is asked.
var dockerCaps = append(slices.Clone(usual), "CAP_NET_RAW")

// unusual returns the capabilities of a set that no other rule names.
func unusual(set []string) (out []string) {
	for _, c := range set {
		named := c == "CAP_NET_RAW"
		for _, d := range dangerous {
			named = named || d.name == c
		}
		if !named && !slices.Contains(usual, c) {
			out = append(out, c)
		}
	}
	return out
}

// tweak applies added and dropped capabilities to a default set as Docker does: a
// name in either list may be ALL.
func tweak(base, add, drop []string) []string {
	norm := func(list []string) (out []string, all bool) {
		for _, c := range list {
			c = capName(c)
			all = all || c == "CAP_ALL"
			out = append(out, c)
		}
		return out, all
	}
	add, addAll := norm(add)
	drop, dropAll := norm(drop)
	dropped := func(c string) bool { return slices.Contains(drop, c) }
	if addAll {
		return slices.DeleteFunc(slices.Clone(capabilities), dropped)
	}
	var set []string
	if !dropAll {
		set = slices.DeleteFunc(slices.Clone(base), dropped)
	}
	return union(set, add)
}

// union adds to a set what it does not have of a list.
func union(set, list []string) []string {
	has := make(map[string]bool, len(set))
	for _, c := range set {
		has[c] = true
	}
	for _, c := range list {
		if !has[c] {
			set, has[c] = append(set, c), true
		}
	}
	return set
}
