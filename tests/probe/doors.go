// Package probe opens every door that the prober knows, on purpose, and wants it
// to be seen; the same doors are shut behind the default boundary. The table below
// drives the tests and is printed in docs/probes.md.
package probe

import (
	"fmt"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// way is how a workload is looked at.
type way int

const (
	// Probed: `bulkhead probe` with flags.
	Probed way = iota
	// Declared: the prober judges by itself in a workload, by a context that declares
	// something else than what the workload got.
	Declared
	// Unconfined: the prober runs as a process of the host.
	Unconfined
	// Rooted: the prober runs as a process of the host in a directory as its root,
	// with files that no kernel would show there.
	Rooted
	// Wrapped: `bulkhead probe` with flags, of which one names a runtime that is not what
	// its processes run.
	Wrapped
)

// scene is a workload, and the doors of which it says something.
type scene struct {
	// how is what a reader is told: flags, or words.
	how   string
	way   way
	flags []string // of probe, or of run; {dir}, {disk}, {socket}, {sockets}, {cgroup}, {address} stand for what the test makes
	// context changes what the prober is told, for Declared and Unconfined.
	context func(*probe.Context)
	verdict report.Verdict
	doors   []string // IDs; a dot at the end stands for the whole group
}

func flags(line string) []string { return strings.Fields(line) }

// probed is a scene whose description is its flags.
func probed(line string, v report.Verdict, doors ...string) scene {
	return scene{how: line, flags: flags(line), verdict: v, doors: doors}
}

const everyCapability = "--cap-add SYS_ADMIN --cap-add SYS_MODULE --cap-add DAC_READ_SEARCH --cap-add BPF --cap-add SYS_RAWIO --cap-add SYS_TIME --cap-add MKNOD"

// anotherHost is what a machine tells that is not this one.
func anotherHost(c *probe.Context) {
	c.Host.BootID, c.Host.Memory, c.Host.Booted = "00000000-0000-0000-0000-000000000000", 1, 1
}

func machine(c *probe.Context) { c.Declared.Boundary, c.Declared.OwnKernel = "vm", true }

// shut are the scenes in which a door is shut. What is in none of them is shut in a
// workload that was asked for nothing.
var shut = []scene{
	probed("--memory 64m --cpus 0.5 --ulimit nofile=64:64 --pids-limit 64 --read-only --network none", report.Held,
		"limits.memory", "limits.memory-reached", "limits.processors", "limits.files", "limits.processes-reached", "files.root", "network.interfaces"),
	probed("--network none --target {address}", report.Held, "network.named-targets"),
	{how: "a host with other figures", way: Declared, context: func(c *probe.Context) { machine(c); anotherHost(c) }, verdict: report.Held,
		doors: []string{"kernel.own", "leaks.memory-size", "leaks.boot-time"}},
}

// opened are the scenes in which a door is open.
var opened = []scene{
	probed("--pid host", report.Leaked, "namespaces.pid", "namespaces.processes"),
	probed("--network host", report.Leaked, "namespaces.net", "network.loopback", "network.abstract-sockets"),
	probed("--ipc host", report.Leaked, "namespaces.ipc", "namespaces.shared-memory", "limits.shared-memory"),
	probed("--uts host", report.Leaked, "namespaces.uts"),
	probed("--userns host", report.Leaked, "namespaces.user", "namespaces.uid-map"),
	probed("--uts host --userns host --cap-add SYS_ADMIN", report.Leaked, "namespaces.hostname"),
	probed("--userns host --cap-add SYSLOG --security-opt apparmor=unconfined", report.Leaked, "kernel.log", "kernel.symbols"),
	probed("--security-opt seccomp=unconfined", report.Leaked, "syscalls."),
	probed("--security-opt unmask=ALL", report.Leaked, "leaks.interrupts", "leaks.firmware"),
	probed("--userns host --security-opt unmask=ALL --security-opt apparmor=unconfined", report.Leaked, "files.sysctls", "files.usermode-helpers", "files.interrupt-routing", "files.buses", "leaks.keys", "leaks.timers"),
	probed("--userns host -v /proc:/x --security-opt apparmor=unconfined", report.Leaked,
		"files.sysctls", "files.usermode-helpers", "files.interrupt-routing", "namespaces.processes", "leaks.interrupts", "leaks.keys", "leaks.timers"),
	probed("--userns host -v /sys:/x --security-opt apparmor=unconfined", report.Leaked, "files.sysfs", "leaks.firmware"),
	probed("--userns host -v /sys:/sys --security-opt apparmor=unconfined", report.Leaked, "files.sysfs"),
	probed("--userns host -v {cgroup}:/cgroup --security-opt apparmor=unconfined", report.Weaker, "files.cgroups", "files.release-agent"),
	probed("--userns host -v /:/host", report.Leaked, "files.host-file"),
	probed("-v /etc:/x:ro", report.Leaked, "files.host-file"),
	probed("-v /run:/hostrun", report.Leaked, "files.host-file"),
	probed("-v /var:/x", report.Leaked, "files.host-file"),
	probed("--mount type=bind,src={dir},dst=/mnt,bind-propagation=rshared", report.Leaked, "files.propagation"),
	probed("-v {socket}:/run/docker.sock", report.Leaked, "files.engine-sockets"),
	probed("-v {socket}:/sock", report.Leaked, "files.engine-sockets"),
	probed("-v {sockets}:/x", report.Leaked, "files.engine-sockets"),
	probed("--device /dev/zero:/dev/null", report.Leaked, "files.null"),
	probed("--cap-add NET_RAW", report.Leaked, "capabilities.effective", "capabilities.bounding", "capabilities.packets"),
	probed("--userns host --cap-add MKNOD", report.Leaked, "capabilities.device-nodes"),
	probed("--security-opt no-new-privileges=false", report.Leaked, "capabilities.no-new-privileges"),
	probed("--device /dev/kmsg", report.Leaked, "devices.extra", "devices.kernel"),
	probed("--device {disk}", report.Leaked, "devices.disks"),
	probed("--userns host -v /dev:/x", report.Leaked, "devices.extra"),
	probed("--userns host -v /dev/kmsg:/log", report.Leaked, "devices.extra"),
	probed("--pids-limit -1", report.Leaked, "limits.processes", "limits.processes-reached"),
	probed("--network host --target {address}", report.Leaked, "network.named-targets"),
	probed("--pid host --userns host --cap-add SYS_PTRACE --security-opt apparmor=unconfined", report.Leaked, "escape.processes"),
	probed("--userns host -v /proc:/x --cap-add SYS_PTRACE --security-opt apparmor=unconfined", report.Leaked, "escape.processes"),
	probed("--userns host "+everyCapability+" --device {disk}", report.Leaked,
		"escape.release-agent", "escape.cgroup-v1", "escape.modules", "escape.file-handles", "escape.bpf", "escape.hardware", "escape.clock", "escape.disks"),
	{how: "declared a machine of its own, and is a container", way: Declared, context: machine, verdict: report.Weaker,
		doors: []string{"kernel.own", "leaks.memory-size", "leaks.boot-time"}},
	{how: "declared limits, a read-only root, no network, and got none of that", way: Declared, verdict: report.Weaker,
		flags: flags("--pids-limit -1"),
		context: func(c *probe.Context) {
			d := c.Declared
			d.Memory, d.CPUs, d.Files, d.Pids, d.ReadOnlyRoot, d.NoNetwork = 64<<20, 0.5, 64, 64, true, true
		},
		doors: []string{"limits.memory", "limits.memory-reached", "limits.processors", "limits.files", "files.root", "network.interfaces"}},
	{how: "a process of the host, with an open directory and ambient capabilities", way: Unconfined, verdict: report.Leaked,
		doors: []string{"namespaces.mnt", "namespaces.cgroup", "capabilities.inheritable", "capabilities.ambient", "files.descriptors"}},
	{how: "a root directory that the working directory is outside of, with files where the kernel's would be", way: Rooted, verdict: report.Leaked,
		doors: []string{"files.working-directory", "files.proc", "files.sysrq", "limits.oom-score", "leaks.memory-image", "leaks.scheduler", "leaks.power", "leaks.thermal", "leaks.hardware"}},
}

// sandboxShut are the scenes in which a door is shut behind gVisor and would not be
// tried in a workload that was asked for nothing.
var sandboxShut = []scene{
	probed("--boundary gvisor --memory 256m --cpus 0.5 --ulimit nofile=64:64 --pids-limit 256 --read-only --network none", report.Held,
		"limits.memory", "limits.processors", "limits.files", "limits.processes", "files.root", "network.interfaces"),
	probed("--boundary gvisor --oom-score-adj 5", report.Held, "limits.oom-score"),
}

// sandboxOpened are the doors that exist behind gVisor, opened. The others lead to
// namespaces, devices and files of the host that the boundary refuses to give.
var sandboxOpened = []scene{
	probed("--boundary gvisor", report.Leaked, "files.sysrq", "files.cgroups", "devices.extra", "devices.kernel", "leaks.memory-size", "syscalls.user-namespaces", "syscalls.table"),
	probed("--boundary gvisor --security-opt seccomp=unconfined", report.Leaked, "syscalls.", "kernel.log"),
	probed("--boundary gvisor --cap-add NET_RAW", report.Leaked, "capabilities.effective", "capabilities.bounding", "capabilities.packets"),
	probed("--boundary gvisor --cap-add MKNOD", report.Leaked, "capabilities.device-nodes"),
	probed("--boundary gvisor --security-opt no-new-privileges=false", report.Leaked, "capabilities.no-new-privileges"),
	probed("--boundary gvisor --pids-limit -1", report.Leaked, "limits.processes", "limits.processes-reached"),
	probed("--boundary gvisor --userns host", report.Leaked, "namespaces.uid-map"),
	probed("--boundary gvisor --userns host -v /:/host", report.Leaked, "files.host-file"),
	{how: "a registered runtime that is a script around `runsc`", way: Wrapped, flags: flags("--runtime wrapped"), verdict: report.Unknown, doors: []string{"kernel.own"}},
}

// covers are the IDs that a scene names, groups written out.
func (s scene) covers() (ids []string) {
	for _, d := range s.doors {
		if !strings.HasSuffix(d, ".") {
			ids = append(ids, d)
			continue
		}
		for _, p := range probe.Probes() {
			if strings.HasPrefix(p.ID, d) {
				ids = append(ids, p.ID)
			}
		}
	}
	return ids
}

// words tell a reader how a scene is made.
func (s scene) words() string {
	if s.way == Probed {
		return "`" + s.how + "`"
	}
	return s.how
}

// sceneFor is the first of a list that covers an ID, nil for none.
func sceneFor(list []scene, id string) *scene {
	for n := range list {
		for _, c := range list[n].covers() {
			if c == id {
				return &list[n]
			}
		}
	}
	return nil
}

// SandboxTable is the same behind gVisor, of the doors that exist there.
func SandboxTable() string {
	var b strings.Builder
	b.WriteString("| opened by | probes | then |\n|---|---|---|\n")
	for _, s := range sandboxOpened {
		ids := make([]string, len(s.doors))
		for n, d := range s.doors {
			ids[n] = "`" + d + strings.Repeat("…", strings.Count(d[len(d)-1:], ".")) + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.words(), strings.Join(ids, ", "), s.verdict)
	}
	return b.String()
}

// Table is the self-test as Markdown: door, probe, verdict shut, verdict open.
func Table() string {
	var b strings.Builder
	b.WriteString("| probe | the door leads to | shut | opened by | then |\n|---|---|---|---|---|\n")
	for _, p := range probe.Probes() {
		held := "held"
		if s := sceneFor(shut, p.ID); s != nil {
			held = fmt.Sprintf("%s, with %s", s.verdict, s.words())
		}
		how, then := "", ""
		if s := sceneFor(opened, p.ID); s != nil {
			how, then = s.words(), string(s.verdict)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", p.ID, p.Door, held, how, then)
	}
	return b.String()
}
