// Package pagetest makes documents for tests of the page: as large as real ones,
// as empty as they may be, and hostile. The same call makes the same document.
package pagetest

import (
	_ "embed"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

//go:embed doors.txt
var doorsText string

// door is one line of doors.txt: what the prober looks for.
type door struct {
	id, name, expected string
	consequence        report.Consequence
	references         []string
}

func doors() (out []door) {
	for line := range strings.Lines(doorsText) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		out = append(out, door{f[0], f[1], f[3], report.Consequence(f[2]), strings.Split(f[4], "; ")})
	}
	return out
}

// way is one way to run an image, with factors for what it costs.
type way struct {
	label, boundary, engine, kernel, note string
	mechanism                             []report.Fact
	start, exit, cold                     float64 // seconds
	beside, daemons, guest                float64 // bytes
	density                               float64
	call, io, net                         float64 // times the baseline's
	own                                   bool
	open                                  []string // doors
	unknown                               []string
	refused                               []string // kernel features
	reason                                string   // it is not available
}

const (
	hostKernel = "6.18.44"
	emulated   = "the machine is emulated, which QEMU's authors do not call a security boundary"
)

var dockerOpen = []string{
	"namespaces.user", "namespaces.cgroup", "namespaces.uid-map", "limits.processes", "leaks.interrupts", "capabilities.packets",
	"capabilities.effective", "capabilities.bounding", "capabilities.no-new-privileges", "capabilities.device-nodes",
	"syscalls.crypto-sockets", "syscalls.vsock",
}

var ways = []way{
	{label: "none", boundary: report.Host, kernel: hostKernel, start: 0.0021, exit: 0.0028, cold: 0.011, density: 4000, call: 1, io: 1, net: 1,
		open: []string{"kernel.log", "namespaces.pid", "namespaces.net", "namespaces.ipc", "namespaces.uts", "namespaces.user", "namespaces.mnt", "files.sysctls", "files.host-file", "files.usermode-helpers", "files.sysfs", "capabilities.effective", "capabilities.packets", "syscalls.filter", "syscalls.table", "syscalls.bpf", "syscalls.modules", "devices.kernel", "devices.disks", "limits.processes", "leaks.interrupts", "leaks.memory-image", "escape.modules", "escape.disks"}},
	{label: "container", boundary: "container", engine: "bulkhead", kernel: hostKernel, start: 0.031, exit: 0.041, cold: 0.064, beside: 4.1e6, density: 812, call: 1.08, io: 0.97, net: 0.82,
		mechanism: []report.Fact{{Name: "namespaces", Value: "cgroup ipc mnt net pid user uts"}, {Name: "seccomp", Value: "361 calls pass"}, {Name: "capabilities", Value: "11"}, {Name: "Landlock", Value: "ABI 6"}}, refused: []string{"io_uring", "bpf", "userfaultfd", "user namespaces"}},
	{label: "gvisor", boundary: "gvisor", engine: "bulkhead", kernel: "4.19.0-gvisor", start: 0.42, exit: 0.47, cold: 0.71, beside: 41e6, density: 244, call: 5.6, io: 0.38, net: 0.21, own: true,
		mechanism: []report.Fact{{Name: "platform", Value: "systrap"}, {Name: "runsc", Value: "20260905"}},
		open:      []string{"leaks.memory-size", "files.sysrq", "devices.kernel"}, unknown: []string{"namespaces.cgroup", "syscalls.table", "limits.processes"}, refused: []string{"io_uring", "bpf", "fanotify", "overlayfs", "nf_tables", "kernel modules"}},
	{label: "vm, booted", boundary: "vm", engine: "bulkhead", kernel: "6.1.0-57-amd64", note: emulated, start: 3.3, exit: 3.45, cold: 4.9, beside: 57e6, guest: 96e6, density: 71, call: 21, io: 0.17, net: 0.09, own: true,
		mechanism: []report.Fact{{Name: "machine", Value: "q35, emulated (TCG)"}, {Name: "QEMU", Value: "7.2.22"}}, refused: []string{"kernel modules"}},
	{label: "vm", boundary: "vm", engine: "bulkhead", kernel: "6.1.0-57-amd64", note: emulated, start: 0.23, exit: 0.31, cold: 0.52, beside: 38e6, guest: 71e6, density: 104, call: 21, io: 0.17, net: 0.09, own: true,
		mechanism: []report.Fact{{Name: "machine", Value: "q35, emulated (TCG)"}, {Name: "template", Value: "of the image"}}, refused: []string{"kernel modules"}},
	{label: "tenant", boundary: "tenant", engine: "bulkhead", kernel: "6.1.0-57-amd64", note: emulated, start: 0.088, exit: 0.12, cold: 0.19, beside: 4.4e6, daemons: 61e6, guest: 7.2e6, density: 390, call: 21.6, io: 0.16, net: 0.08, own: true,
		mechanism: []report.Fact{{Name: "machine", Value: "q35, emulated (TCG)"}}, refused: []string{"io_uring", "bpf", "userfaultfd", "kernel modules"}},
	{label: "system", boundary: "vm", engine: "bulkhead", kernel: "6.1.0-57-amd64", note: emulated, start: 9.4, exit: 11.2, cold: 14.1, beside: 63e6, guest: 188e6, density: 38, call: 20.4, io: 0.16, net: 0.09, own: true, unknown: []string{"syscalls.table"}, open: []string{"syscalls.filter"}},
	{label: "runc", boundary: "container", engine: "runc 1.1.5", kernel: hostKernel, start: 0.044, exit: 0.058, cold: 0.083, beside: 2.9e6, density: 760, call: 1.09, io: 0.97, net: 0.81, open: dockerOpen[:9], refused: []string{"bpf", "user namespaces"}},
	{label: "crun", boundary: "container", engine: "crun 1.8.1", kernel: hostKernel, start: 0.033, exit: 0.043, cold: 0.069, beside: 0.6e6, density: 770, call: 1.07, io: 0.97, net: 0.82, open: dockerOpen[:9], refused: []string{"bpf", "user namespaces"}},
	{label: "Docker", boundary: "container", engine: "docker 20.10.24", kernel: hostKernel, start: 0.31, exit: 0.44, cold: 0.62, beside: 12.4e6, daemons: 118e6, density: 402, call: 1.1, io: 0.95, net: 0.71, open: dockerOpen, refused: []string{"bpf", "user namespaces"}},
	{label: "Podman", boundary: "container", reason: "podman is not installed"},
}

// Time is that of all documents.
var Time = time.Date(2026, 12, 1, 16, 40, 0, 0, time.UTC)

// Compare is a comparison of eleven ways to run an image, one of which is not
// available, on a machine without hardware virtualization.
func Compare() *report.Document {
	d := &report.Document{
		Format: report.Format, Kind: report.Compare, Tool: "bulkhead 0.9.0", Time: Time,
		Machine: []report.Fact{
			{Name: "processors", Value: "2 × AMD EPYC 9R14"}, {Name: "memory", Value: "7.8 GB"}, {Name: "kernel", Value: "Linux " + hostKernel},
			{Name: "distribution", Value: "Debian GNU/Linux 12 (bookworm)"}, {Name: "hardware virtualization", Value: "none: machines are emulated"},
			{Name: "cgroup", Value: "v1 and v2"}, {Name: "file system", Value: "ext4 on /dev/vda"}, {Name: "QEMU", Value: "7.2.22"},
			{Name: "runsc", Value: "20260905"}, {Name: "Docker", Value: "20.10.24"}, {Name: "repetitions", Value: "25, interleaved"},
		},
	}
	for i := range ways {
		d.Reports = append(d.Reports, ways[i].report(rand.New(rand.NewPCG(uint64(i), 1))))
	}
	return d
}

// noisy are n samples around a value, with the long tail that times have.
func noisy(r *rand.Rand, n int, value, spread float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = value * (1 + spread*math.Abs(r.NormFloat64()) + spread*max(0, r.ExpFloat64()-1))
	}
	return out
}

var features = []string{
	"io_uring", "bpf", "userfaultfd", "fanotify", "inotify", "user namespaces", "overlayfs", "FUSE", "nf_tables", "raw sockets", "System V semaphores",
	"POSIX message queues", "memfd_create", "pidfd_open", "clone3", "seccomp filters", "Landlock", "perf_event_open", "ptrace", "huge pages", "kernel modules", "real-time scheduling",
}

func (w *way) report(r *rand.Rand) report.Report {
	out := report.Report{Subject: report.Subject{
		Label: w.label, Boundary: w.boundary, Engine: w.engine, Image: "docker.io/library/debian:12", Kernel: w.kernel, HostKernel: hostKernel,
		Command: "bulkhead run --rm --boundary " + w.boundary + " debian:12 /bin/true", Note: w.note,
	}}
	if w.boundary != report.Host && w.kernel == hostKernel {
		out.Shared = []string{"the kernel, Linux " + hostKernel}
	}
	add := func(id, name string, u report.Unit, b report.Better, samples ...float64) *report.Measure {
		m := report.Measure{ID: id, Name: name, Unit: u, Better: b, Samples: samples}
		if w.reason != "" {
			m.Samples, m.Reason = nil, w.reason
		}
		out.Measures = append(out.Measures, m)
		return &out.Measures[len(out.Measures)-1]
	}
	text := func(id, name, value string, parts ...report.Fact) {
		m := report.Measure{ID: id, Name: name, Text: value, Parts: parts}
		if w.reason != "" {
			m.Text, m.Parts, m.Reason = "", nil, w.reason
		}
		out.Measures = append(out.Measures, m)
	}
	yes := map[bool]string{true: "yes", false: "no"}
	text("kernel.name", "kernel", "Linux "+w.kernel)
	text("kernel.shared", "is it the host's", yes[!w.own])
	text("system.name", "operating system", "Debian GNU/Linux 12")
	text("system.init", "first process", map[bool]string{true: "systemd 252", false: "the image's command"}[w.label == "system"])
	text("isolation.mechanism", "mechanism in force", w.does(), w.mechanism...)
	add("start.output", "to first output", report.Seconds, report.Less, noisy(r, 25, w.start, 0.04)...).Note = "warm"
	add("start.exit", "to exit", report.Seconds, report.Less, noisy(r, 25, w.exit, 0.04)...).Note = "warm"
	add("start.cold-output", "to first output, cold", report.Seconds, report.Less, noisy(r, 9, w.cold, 0.08)...).Note = "page cache dropped"
	add("start.cold-exit", "to exit, cold", report.Seconds, report.Less, noisy(r, 9, w.cold*1.12, 0.08)...).Note = "page cache dropped"
	add("image.size", "on disk", report.Bytes, report.Less, 124.8e6*map[bool]float64{true: 0.62, false: 1}[w.boundary == "vm" || w.boundary == "tenant"])
	add("memory.beside", "processes beside it", report.Bytes, report.Less, noisy(r, 7, w.beside, 0.01)...)
	add("memory.daemons", "daemons, once for all", report.Bytes, report.Less, noisy(r, 7, w.daemons, 0.01)...)
	m := add("guest.memory", "what the guest uses", report.Bytes, report.Less, noisy(r, 7, w.guest, 0.01)...)
	if w.guest > 0 {
		m.Parts = []report.Fact{{Name: "kernel", Value: "41 MB"}, {Name: "bulkhead-agent", Value: "9.2 MB"}, {Name: "page cache", Value: "20 MB"}}
	}
	add("density.idle", "idle at once", report.Number, report.More, min(w.density, 600)).Note = "stopped by the limit of 600"
	if w.density < 600 {
		out.Measures[len(out.Measures)-1].Note = "stopped by memory"
	}
	add("density.room", "room for", report.Number, report.More, w.density).Estimated = true
	for _, c := range []struct {
		id, name string
		base     float64
	}{
		{"getpid", "getpid", 61e-9}, {"file", "open, read, close", 1.9e-6}, {"futex", "futex wake and wait", 6.1e-6}, {"map", "mmap and touch a page", 0.9e-6},
		{"spawn", "fork and exec", 480e-6}, {"pipe", "pipe round trip", 7.4e-6}, {"tcp", "TCP round trip", 19e-6},
	} {
		add("calls."+c.id, c.name, report.Seconds, report.Less, noisy(r, 25, c.base*w.call, 0.03)...)
	}
	add("files.write", "write", report.BytesPerSecond, report.More, noisy(r, 9, 1.9e9*w.io, 0.04)...)
	add("files.read", "read", report.BytesPerSecond, report.More, noisy(r, 9, 4.4e9*w.io, 0.04)...)
	add("files.create", "create and remove", report.PerSecond, report.More, noisy(r, 9, 91e3*w.io, 0.04)...)
	if w.label == "system" {
		out.Measures = append(out.Measures, report.Measure{ID: "network.published", Name: "through a published port", Unit: report.BytesPerSecond, Better: report.More, Reason: "the system has no server to ask"})
	} else {
		add("network.published", "through a published port", report.BytesPerSecond, report.More, noisy(r, 9, 2.6e9*w.net, 0.05)...)
	}
	add("network.roundtrip", "round trip", report.Seconds, report.Less, noisy(r, 9, 31e-6/w.net, 0.05)...)
	slow := 1 / max(1, w.call/2)
	add("work.compress", "compress", report.BytesPerSecond, report.More, noisy(r, 9, 310e6*slow, 0.02)...)
	add("work.hash", "hash", report.BytesPerSecond, report.More, noisy(r, 9, 1.4e9*slow, 0.02)...)
	f := add("compat.features", "features that work", report.Number, report.More, float64(len(features)-len(w.refused)))
	for _, name := range features {
		v := "works"
		for _, no := range w.refused {
			if no == name {
				v = "EPERM"
			}
		}
		if w.reason == "" {
			f.Parts = append(f.Parts, report.Fact{Name: name, Value: v})
		}
	}
	w.findings(&out)
	return out
}

func (w *way) does() string {
	switch w.boundary {
	case report.Host:
		return "none"
	case "container":
		return "namespaces, cgroups, seccomp"
	case "gvisor":
		return "a kernel in user space"
	}
	return "a virtual machine"
}

func (w *way) findings(out *report.Report) {
	is := func(list []string, id string) bool {
		for _, l := range list {
			if l == id {
				return true
			}
		}
		return false
	}
	for _, d := range doors() {
		f := report.Finding{
			ID: d.id, Door: d.name, Verdict: report.Held, Consequence: d.consequence, Severity: d.consequence.Severity(), Expected: d.expected, Observed: d.expected,
			Declared: "shut: the profile in force", References: d.references, Recheck: "bulkhead probe debian:12",
			Evidence: []report.Evidence{{Call: "openat(/proc/" + d.id + ", O_WRONLY)", Errno: "EACCES"}},
		}
		if w.own && d.consequence == report.Depth {
			f.Consequence, f.Severity = report.GuestDepth, report.Low
			if w.boundary == "gvisor" {
				f.Consequence = report.SandboxDepth
			}
		}
		switch {
		case w.reason != "":
			f.Verdict, f.Reason, f.Observed, f.Evidence = report.Unknown, w.reason, "", nil
		case d.id == "kernel.own" && !w.own:
			f.Verdict, f.Reason, f.Observed, f.Evidence = report.NotApplicable, "it shares the host's by design", "", nil
		case is(w.open, d.id):
			f.Verdict, f.Observed, f.Declared = report.Leaked, "open: "+d.name, "open: --security-opt"
			f.Evidence = []report.Evidence{{Call: "openat(/proc/" + d.id + ", O_WRONLY)", Value: "a descriptor"}, {Call: "readlink(/proc/self/ns/x)", Value: "pid:[4026531836]"}}
			f.Enables, f.Fix, f.Breaks = "reaching "+d.name, "leave out what opens it", "programs that rely on it"
			if d.id == "limits.processes" {
				f.Verdict = report.Weaker
				f.Declared = "shut: --pids-limit 4096"
			}
		case is(w.unknown, d.id) && d.id == "limits.processes":
			f.Verdict, f.Reason, f.Observed = report.Unknown, "the limit is around the sandbox", ""
			f.Waived = &report.Waiver{Owner: "ops", Reason: "counted outside", Until: "2027-01-31"}
		case is(w.unknown, d.id):
			f.Verdict, f.Reason, f.Observed = report.Unknown, "the call is not known there", ""
		case strings.HasPrefix(d.id, "limits.memory") || d.id == "limits.processors" || d.id == "network.named-targets":
			f.Verdict, f.Reason, f.Observed, f.Evidence = report.NotApplicable, "nobody asked for it", "", nil
		}
		out.Findings = append(out.Findings, f)
	}
	out.Sort()
	out.Untested = []report.Untested{{What: "side channels of the processor", Why: "they need hours of measuring"}, {What: "egress", Why: "no --target was named"}}
}

// Probe is what the prober finds in one workload.
func Probe() *report.Document {
	d := Compare()
	d.Kind, d.Machine = report.Probe, nil
	d.Reports = d.Reports[9:10]
	d.Reports[0].Measures = nil
	return d
}

// Audit is what an audit finds of n containers and the host.
func Audit(n int) *report.Document {
	c := Compare()
	d := &report.Document{
		Format: report.Format, Kind: report.Audit, Tool: c.Tool, Time: Time, Threshold: report.Medium,
		Notes: []string{"the waiver of line 3, files.host of docker:db, expired on 2026-11-30"},
	}
	for i := range n {
		r := c.Reports[1+i%9]
		r.Measures = nil
		r.Findings = r.Findings[:40]
		r.Subject.Label, r.Subject.Note = fmt.Sprintf("docker:web-%03d", i), ""
		d.Reports = append(d.Reports, r)
	}
	return d
}
