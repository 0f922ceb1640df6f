package probe

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe/gate"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// filterOff are the options that change the filter.
var filterOff = []string{"--security-opt seccomp", capAdd}

// call is a system call with arguments, at the filter.
func call(name string, number uint32, args ...uint64) gateCall {
	g := gateCall{name: name, call: gate.Call{Number: number}}
	copy(g.call.Args[:], args)
	return g
}

// calls are system calls at the filter by names and numbers, with zeros.
func calls(numbers ...named) (out []gateCall) {
	for _, n := range numbers {
		out = append(out, call(n.name, n.number))
	}
	return out
}

// sockets are the ways to a socket of a family. The kernel takes it from the lower
// half of the argument, whatever a filter compares, and from memory, where no filter
// sees it, if socketcall(2) is asked.
func sockets(name string, family, kind uint64) []gateCall {
	return append([]gateCall{
		call("socket("+name+")", unix.SYS_SOCKET, family, kind),
		call("socket(1<<32 | "+name+")", unix.SYS_SOCKET, 1<<32|family, kind),
	}, i386Sockets...)
}

type named struct {
	name   string
	number uint32
}

// filterProbe is open when the filter lets a call pass that the default refuses.
func filterProbe(id, door, enables string, references string, gates []gateCall) Probe {
	return Probe{
		ID: "syscalls." + id, Door: door, Expected: "refused by the seccomp filter", Enables: enables, Consequence: report.Depth,
		Opens: filterOff, Fix: "use the default seccomp profile of a current engine, and add capabilities by name only",
		References: strings.Split(references, "; "), gates: gates, judge: filtered,
	}
}

func callProbes() []Probe {
	return []Probe{
		{
			ID: "syscalls.filter", Door: "system calls without a filter", Expected: "a seccomp filter is in force",
			Enables:     "trying every system call of the kernel",
			Consequence: report.Depth,
			Opens:       []string{"--security-opt seccomp"},
			Fix:         "keep the default seccomp profile",
			References:  []string{"seccomp(2)", "CIS Docker 5.21"},
			observe:     status("Seccomp"),
			judge:       func(v *view) outcome { return judgeStatus(v, "Seccomp", "2") },
		},
		{
			ID: "syscalls.table", Door: "more system calls than the profile says", Expected: "the filter lets pass what the default profile does, and no more",
			Enables:     "reaching code of the kernel that the profile keeps away",
			Consequence: report.Depth,
			Opens:       filterOff,
			Fix:         "keep the default seccomp profile",
			References:  []string{"seccomp(2)"},
			observe: func(p *prober) {
				if p.noGate != "" {
					p.trouble("%s", p.noGate)
					return
				}
				p.add(tableCall, ranges(p.table), nil)
			},
			judge: judgeTable,
		},
		{
			ID: "syscalls.i386", Door: "the system calls of 32-bit programs", Expected: "keyctl of the i386 table is refused, too",
			Enables:     "making calls by another entry that the filter refuses by the usual one",
			Consequence: report.Depth,
			Opens:       filterOff,
			Fix:         "keep the default seccomp profile",
			References:  []string{"seccomp(2)"},
			gates:       i386Keyctl,
			judge:       filtered,
		},
		filterProbe("x32", "the system calls of the x32 table", "making calls by another table that the filter refuses by the usual one", "seccomp(2)", x32Keyctl),
		filterProbe("user-namespaces", "making user namespaces", "full capabilities in a namespace of one's own, and with them the kernel's code for mounts and networks",
			"user_namespaces(7); CVE-2022-0185", []gateCall{
				call("unshare(CLONE_NEWUSER)", unix.SYS_UNSHARE, unix.CLONE_NEWUSER), call("clone(CLONE_NEWUSER)", unix.SYS_CLONE, unix.CLONE_NEWUSER),
				// Its flags are in memory, where no filter sees them.
				call("clone3", unix.SYS_CLONE3),
			}),
		filterProbe("join-namespaces", "joining namespaces", "entering namespaces of the host through a descriptor", "setns(2)", calls(named{"setns", unix.SYS_SETNS})),
		filterProbe("mount", "mounting", "changing the mounts that masks are made of", "mount(2)", calls(
			named{"mount", unix.SYS_MOUNT}, named{"umount2", unix.SYS_UMOUNT2}, named{"pivot_root", unix.SYS_PIVOT_ROOT})),
		filterProbe("mount-api", "the new calls for mounting", "changing mounts by calls that old filters do not know", "fsopen(2); CVE-2022-0185", calls(
			named{"fsopen", unix.SYS_FSOPEN}, named{"fsmount", unix.SYS_FSMOUNT}, named{"open_tree", unix.SYS_OPEN_TREE},
			named{"move_mount", unix.SYS_MOVE_MOUNT}, named{"mount_setattr", unix.SYS_MOUNT_SETATTR})),
		filterProbe("crypto-sockets", "the kernel's cryptography by AF_ALG", "code of the kernel that few have reviewed", "CVE-2026-31431",
			sockets("AF_ALG", unix.AF_ALG, unix.SOCK_SEQPACKET)),
		filterProbe("vsock", "sockets to the hypervisor by AF_VSOCK", "services of the host or the hypervisor that listen there", "vsock(7)",
			sockets("AF_VSOCK", unix.AF_VSOCK, unix.SOCK_STREAM)),
		filterProbe("io-uring", "io_uring", "a rich source of kernel bugs, past filters of the calls that it makes", "io_uring(7)", calls(
			named{"io_uring_setup", unix.SYS_IO_URING_SETUP}, named{"io_uring_enter", unix.SYS_IO_URING_ENTER}, named{"io_uring_register", unix.SYS_IO_URING_REGISTER})),
		filterProbe("bpf", "programs in the kernel", "loading code that the kernel checks and runs", "bpf(2); CVE-2021-3490", calls(named{"bpf", unix.SYS_BPF})),
		filterProbe("perf", "performance counters", "watching the processor, and a source of kernel bugs", "perf_event_open(2)", calls(named{"perf_event_open", unix.SYS_PERF_EVENT_OPEN})),
		filterProbe("userfaultfd", "handling page faults", "stopping the kernel in the middle of a copy, a help to many attacks", "userfaultfd(2)", calls(named{"userfaultfd", unix.SYS_USERFAULTFD})),
		filterProbe("keys", "the kernel's keyrings", "keys that are not namespaced, and a source of kernel bugs", "keyrings(7); CVE-2016-0728", calls(
			named{"add_key", unix.SYS_ADD_KEY}, named{"request_key", unix.SYS_REQUEST_KEY}, named{"keyctl", unix.SYS_KEYCTL})),
		filterProbe("file-handles", "opening files by handle", "opening any file of a file system, whatever is mounted of it", "open_by_handle_at(2)", calls(
			named{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT})),
		filterProbe("modules", "loading kernel modules", "running code in the kernel", "init_module(2)", calls(
			named{"init_module", unix.SYS_INIT_MODULE}, named{"finit_module", unix.SYS_FINIT_MODULE}, named{"delete_module", unix.SYS_DELETE_MODULE})),
		filterProbe("kexec", "booting another kernel", "replacing the host's kernel", "kexec_load(2)", calls(
			named{"kexec_load", unix.SYS_KEXEC_LOAD}, named{"kexec_file_load", unix.SYS_KEXEC_FILE_LOAD})),
		filterProbe("reboot", "rebooting", "ending the host, from its pid namespace", "reboot(2)", calls(named{"reboot", unix.SYS_REBOOT})),
		filterProbe("swap", "swap areas", "taking the host's memory for files of one's own", "swapon(2)", calls(named{"swapon", unix.SYS_SWAPON}, named{"swapoff", unix.SYS_SWAPOFF})),
		filterProbe("clock", "setting the clock", "changing the time of everybody on the host", "settimeofday(2)", calls(
			named{"settimeofday", unix.SYS_SETTIMEOFDAY}, named{"clock_settime", unix.SYS_CLOCK_SETTIME})),
		filterProbe("accounting", "process accounting and quotas", "switching the host's accounting off", "acct(2)", calls(
			named{"acct", unix.SYS_ACCT}, named{"quotactl", unix.SYS_QUOTACTL})),
		filterProbe("watching", "watching file systems by fanotify", "seeing and stopping what others do with files", "fanotify(7)", calls(named{"fanotify_init", unix.SYS_FANOTIFY_INIT})),
		filterProbe("personality", "other personalities", "switching address randomization off", "personality(2)",
			[]gateCall{call("personality(ADDR_NO_RANDOMIZE)", unix.SYS_PERSONALITY, 0x0040000)}),
		filterProbe("kernel-log", "the kernel's log", "reading it where the host does not restrict it", "syslog(2)", calls(named{"syslog", unix.SYS_SYSLOG})),
		filterProbe("host-name", "setting names", "renaming the host from its namespace", "sethostname(2)", calls(
			named{"sethostname", unix.SYS_SETHOSTNAME}, named{"setdomainname", unix.SYS_SETDOMAINNAME})),
		filterProbe("terminals", "hanging up terminals", "taking the terminal from others", "vhangup(2)", calls(named{"vhangup", unix.SYS_VHANGUP})),
		filterProbe("lookup-cookies", "looking up profiling cookies", "finding paths that are not mounted", "lookup_dcookie(2)", calls(named{"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE})),
		filterProbe("io-ports", "the processor's I/O ports", "talking to the host's hardware past every driver", "iopl(2)", ioPorts),
	}
}

const tableCall = "every number, at the filter"

// ranges writes down the numbers that pass: "0-40,42".
func ranges(table []gate.Result) string {
	var b strings.Builder
	for n := 0; n < len(table); n++ {
		if table[n].Verdict != gate.Passes {
			continue
		}
		from := n
		for n+1 < len(table) && table[n+1].Verdict == gate.Passes {
			n++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(from))
		if n > from {
			b.WriteString("-" + strconv.Itoa(n))
		}
	}
	return b.String()
}

// parseRanges reads what ranges wrote.
func parseRanges(s string) (map[int]bool, bool) {
	set := map[int]bool{}
	if s == "" {
		return set, true
	}
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(low)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(high)
		}
		if err != nil || from < 0 || to > gate.Last || from > to {
			return nil, false
		}
		for n := from; n <= to; n++ {
			set[n] = true
		}
	}
	return set, true
}

// judgeTable compares what passes with what the default profile lets pass.
func judgeTable(v *view) outcome {
	e, ok := v.call(tableCall)
	passing, good := parseRanges(e.Value)
	if !ok || !good || e.Errno != "" || len(passing) == 0 {
		return isUnclear("of no call is it known that it passes")
	}
	seen := fmt.Sprintf("%d of the numbers to %d pass", len(passing), gate.Last)
	if v.context.Declared == nil || v.context.Declared.Passes == "" {
		return isAbsent("no profile is declared; " + seen)
	}
	declared, good := parseRanges(v.context.Declared.Passes)
	if !good {
		return isUnclear("the declared profile makes no sense")
	}
	var more []string
	for n := range gate.Last + 1 {
		if passing[n] && !declared[n] {
			more = append(more, strconv.Itoa(n))
		}
	}
	if len(more) > 0 {
		return isOpen(fmt.Sprintf("%s, %d more than the default profile lets: numbers %s", seen, len(more), list(more)))
	}
	return isShut(seen)
}
