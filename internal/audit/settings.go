package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// setting is one option of the host that matters for isolation.
type setting struct {
	id, door             string
	severity             report.Severity
	consequence          report.Consequence
	expected             string
	enables, fix, breaks string
	references           []string
	check                func(*Host) answer
}

// sysctl is the setting of a kernel parameter that is at least a number.
func sysctl(id, door, name string, least int, severity report.Severity, c report.Consequence, enables, breaks string) setting {
	file := "proc/sys/" + strings.ReplaceAll(name, ".", "/")
	return setting{
		id: id, door: door, severity: severity, consequence: c, expected: fmt.Sprintf("%s is %d or more", name, least),
		enables: enables, fix: fmt.Sprintf("sysctl -w %s=%d, and the same in /etc/sysctl.d", name, least), breaks: breaks,
		references: []string{"Linux admin-guide/sysctl"},
		check: func(h *Host) answer {
			text, err := h.read(file)
			at := report.Evidence{Call: "/" + file, Value: text}
			if err != nil {
				return unreadable(err, "/"+file)
			}
			n, err := strconv.Atoi(text)
			switch {
			case err != nil:
				return unknown(fmt.Sprintf("it is %.40q and no number", text), at)
			case n < least:
				return leaked(fmt.Sprintf("%s is %d", name, n), at)
			}
			return held(fmt.Sprintf("%s is %d", name, n), at)
		},
	}
}

// unreadable tells a file that the kernel does not have from one that cannot be read.
func unreadable(err error, file string) answer {
	if errors.Is(err, fs.ErrNotExist) {
		return notApplicable("the kernel has no " + file)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // file has the whole path
	}
	return unknown("it could not be read: "+err.Error(), report.Evidence{Call: file})
}

// settings are all of them. Those for machines are of Firecracker's guide to
// production hosts; the others of the kernel's self-protection project.
var settings = []setting{
	sysctl("bpf", "programs in the kernel from every user", "kernel.unprivileged_bpf_disabled", 1, report.Medium, report.Depth,
		"loading programs into the kernel past its verifier's known faults", "unprivileged programs that use BPF"),
	sysctl("kptr", "addresses of the kernel", "kernel.kptr_restrict", 1, report.Low, report.Reads,
		"finding the kernel's code and data, which an exploit needs", "profilers without privilege"),
	sysctl("dmesg", "the kernel's log", "kernel.dmesg_restrict", 1, report.Low, report.Reads,
		"addresses and events of the host in the log", "dmesg without privilege"),
	sysctl("ptrace", "memory of the same user's processes", "kernel.yama.ptrace_scope", 1, report.Low, report.Depth,
		"one process that was taken over reads the secrets of others of its user", "debuggers that attach to running processes"),
	sysctl("perf", "performance counters", "kernel.perf_event_paranoid", 2, report.Low, report.Reads,
		"measuring what others compute", "profilers without privilege"),
	sysctl("jit", "constants of BPF programs", "net.core.bpf_jit_harden", 1, report.Low, report.Depth,
		"placing code of one's own in the kernel's memory", "some speed of filters"),
	{
		id: "userns", door: "user namespaces of every user", severity: report.Low, consequence: report.Depth,
		expected: "user namespaces for root only, where nobody runs containers without root",
		enables:  "capabilities in a namespace of one's own, and with them parts of the kernel that few have reviewed",
		fix:      "sysctl -w kernel.unprivileged_userns_clone=0 on Debian, or user.max_user_namespaces=0 where no container needs one",
		breaks:   "rootless engines, sandboxes of browsers", references: []string{"CVE-2022-0185"}, check: userNamespaces,
	},
	{
		id: "lockdown", door: "the kernel's memory for the host's root", severity: report.Low, consequence: report.Depth,
		expected: "lockdown integrity or confidentiality", enables: "a way from root on the host into the kernel, where rootkits hide",
		fix: "boot with lockdown=integrity", breaks: "unsigned modules, hibernation, kexec of unsigned kernels", references: []string{"kernel_lockdown(7)"},
		check: func(h *Host) answer {
			const file = "sys/kernel/security/lockdown"
			text, err := h.read(file)
			at := report.Evidence{Call: "/" + file, Value: text}
			switch {
			case err != nil:
				return unreadable(err, "/"+file)
			case strings.Contains(text, "[none]"):
				return leaked("none", at)
			case strings.Contains(text, "[integrity]"), strings.Contains(text, "[confidentiality]"):
				return held(text, at)
			}
			return unknown(fmt.Sprintf("it is %.60q", text), at)
		},
	},
	{
		id: "ksm", door: "pages that machines share", severity: report.Medium, consequence: report.Reads,
		expected: "KSM off", enables: "one guest finds out by timing which pages another one has",
		fix: "echo 2 > /sys/kernel/mm/ksm/run", breaks: "more memory is used", references: []string{"Firecracker, production host set-up"},
		check: func(h *Host) answer {
			return isValue(h, "sys/kernel/mm/ksm/run", "1", "KSM merges pages", "KSM is off")
		},
	},
	{
		id: "smt", door: "the other thread of a core", severity: report.Medium, consequence: report.Reads,
		expected: "SMT off, or whole cores for each tenant", enables: "one guest measures what another one computes on the same core",
		fix: "boot with nosmt, or echo off > /sys/devices/system/cpu/smt/control", breaks: "some throughput",
		references: []string{"Firecracker, production host set-up", "Linux admin-guide/hw-vuln/core-scheduling"},
		check: func(h *Host) answer {
			return isValue(h, "sys/devices/system/cpu/smt/active", "1", "SMT is active", "SMT is not active")
		},
	},
	{
		id: "swap", door: "memory of machines on disk", severity: report.Medium, consequence: report.Reads,
		expected: "no swap, or swap in memory", enables: "memory of guests stays on a disk after they are gone",
		fix: "swapoff -a, and remove swap from /etc/fstab, or encrypt it", breaks: "programs that need more memory than there is",
		references: []string{"Firecracker, production host set-up"}, check: swap,
	},
}

func isValue(h *Host, file, bad, open, shut string) answer {
	text, err := h.read(file)
	at := report.Evidence{Call: "/" + file, Value: text}
	switch {
	case err != nil:
		return unreadable(err, "/"+file)
	case text == bad:
		return leaked(open, at)
	}
	return held(shut, at)
}

func userNamespaces(h *Host) answer {
	const clone, limit = "proc/sys/kernel/unprivileged_userns_clone", "proc/sys/user/max_user_namespaces"
	const restricted = "proc/sys/kernel/apparmor_restrict_unprivileged_userns"
	var from []report.Evidence
	for _, c := range []struct{ file, shut string }{{clone, "0"}, {limit, "0"}, {restricted, "1"}} {
		text, err := h.read(c.file)
		if err != nil {
			continue
		}
		at := report.Evidence{Call: "/" + c.file, Value: text}
		if text == c.shut {
			return held("not for every user", at)
		}
		from = append(from, at)
	}
	if len(from) == 0 {
		return unknown("neither " + clone + " nor " + limit + " could be read")
	}
	return leaked("every user can make them", from...)
}

func swap(h *Host) answer {
	text, err := h.read("proc/swaps")
	if err != nil {
		return unreadable(err, "/proc/swaps")
	}
	var found []string
	for i, line := range strings.Split(text, "\n") {
		if f := strings.Fields(line); i > 0 && len(f) > 0 && !strings.HasPrefix(f[0], "/dev/zram") {
			found = append(found, f[0])
		}
	}
	at := report.Evidence{Call: "/proc/swaps", Value: text}
	if len(found) > 0 {
		return leaked(list(found), at)
	}
	return held("no swap on disk", at)
}
