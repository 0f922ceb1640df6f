package comparing

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// host is this machine: what workloads are compared with.
type host struct{ facts meter.Facts }

func localHost() *host { return &host{meter.Look()} }

// other reports whether a kernel is not this host's. What runs there says so
// itself, which is what a comparison needs; the prober does not take its word.
func (h *host) other(f *meter.Facts) bool {
	return f.Release != h.facts.Release || f.Version != h.facts.Version || f.BootID != "" && f.BootID != h.facts.BootID
}

// mechanism is what isolates a workload, as it is seen in force: the kernel, the
// machine, namespaces, filter, capabilities.
func (h *host) mechanism(f *meter.Facts, machine string) (string, []report.Fact) {
	var words []string
	var parts []report.Fact
	add := func(name, value, word string) {
		parts = append(parts, report.Fact{Name: name, Value: value})
		if word != "" {
			words = append(words, word)
		}
	}
	switch {
	case machine != "":
		add("machine", machine, machine)
	case h.other(f):
		add("kernel", f.Version, "a kernel in user space")
	}
	var own []string
	for kind, link := range f.Namespaces {
		if link != h.facts.Namespaces[kind] {
			own = append(own, kind)
		}
	}
	slices.Sort(own)
	if len(own) > 0 {
		add("namespaces of its own", strings.Join(own, ", "), count(len(own), "namespace"))
	} else {
		add("namespaces of its own", "none", "")
	}
	if f.Seccomp == "2" {
		add("system call filter", "seccomp mode 2", "seccomp")
	} else {
		add("system call filter", "none, seccomp mode "+f.Seccomp, "")
	}
	caps, _ := strconv.ParseUint(f.Capabilities, 16, 64)
	all, _ := strconv.ParseUint(h.facts.Capabilities, 16, 64)
	word := ""
	if n := bits.OnesCount64(caps); n < bits.OnesCount64(all) {
		word = fmt.Sprintf("%d capabilities", n)
	}
	add("capabilities", fmt.Sprintf("%d: %s", bits.OnesCount64(caps), f.Capabilities), word)
	add("user IDs", f.UIDMap, "")
	if f.NoNewPrivs == "1" {
		add("no_new_privs", "1", "no_new_privs")
	} else {
		add("no_new_privs", f.NoNewPrivs, "")
	}
	if f.Label != "" {
		add("security label", f.Label, "")
	}
	if len(words) == 0 {
		return "none", parts
	}
	return strings.Join(words, ", "), parts
}

// count is a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// isolatedBy is the machine that a workload of ours is in, in words, "" for none.
func (w *way) isolatedBy() string {
	if w.machine == nil {
		return ""
	}
	if w.machine.Accel == "tcg" {
		w.subject.Note = "the machine is emulated: its times are several times those of hardware, and QEMU's authors do not call emulation a security boundary"
		return "a virtual machine (QEMU, emulated)"
	}
	return "a virtual machine (QEMU, " + strings.ToUpper(w.machine.Accel) + ")"
}

// machineOf looks at the machine of a way of ours, of a workload that is started
// for it where there is none.
func (c *comparison) machineOf(ctx context.Context, w *way) (_ *boundary.Machine, err error) {
	var rec *engine.Record
	switch d := w.driver.(type) {
	case *tenant:
		rec, err = c.InspectTenant(ctx, d.name)
	case *system:
		rec, err = c.Inspect(ctx, d.name)
	default:
		name := newName("look")
		if _, err := w.detach(ctx, name, idle, false); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, w.remove(context.WithoutCancel(ctx), name)) }()
		rec, err = c.Inspect(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	return rec.Machine, nil
}

// machine is what the figures hold for.
func (c *comparison) machine(ctx context.Context, before string) []report.Fact {
	f := c.host.facts
	facts := []report.Fact{
		{Name: "kernel", Value: f.Sysname + " " + f.Release + " " + f.Machine},
		{Name: "system", Value: f.OS},
		{Name: "processors", Value: fmt.Sprintf("%d × %s", f.Processors, f.CPU)},
		{Name: "memory", Value: fmt.Sprintf("%.1f GB", float64(f.Memory)/1e9)},
		{Name: "control groups", Value: cgroupLayout()},
		{Name: "load before and after", Value: before + " / " + load()},
		{Name: "image", Value: c.Image},
		{Name: "command", Value: c.what()},
	}
	for _, p := range []struct {
		name string
		args []string
	}{
		{"QEMU", []string{"qemu-system-x86_64", "--version"}}, {"runsc", []string{"runsc", "--version"}}, {"runc", []string{"runc", "--version"}},
		{"crun", []string{"crun", "--version"}}, {"Docker", []string{"docker", "version", "--format", "{{.Server.Version}}"}}, {"Podman", []string{"podman", "--version"}},
	} {
		if _, err := exec.LookPath(p.args[0]); err != nil {
			continue
		}
		if out, err := output(ctx, p.args...); err == nil {
			line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
			facts = append(facts, report.Fact{Name: p.name, Value: line})
		}
	}
	for i := range facts {
		if facts[i].Value == "" {
			facts[i].Value = "unknown"
		}
	}
	return facts
}

// what is the program whose start is measured.
func (c *comparison) what() string {
	if len(c.Command) == 0 {
		return "a program of ours that prints one line"
	}
	return strings.Join(c.Command, " ")
}

func cgroupLayout() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "v2"
	}
	if mounts, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounts), " cgroup2 ") {
		return "v1 and v2 mixed"
	}
	return "v1"
}

// load is the machine's load average of the last minute.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
