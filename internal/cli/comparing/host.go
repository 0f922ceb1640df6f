package comparing

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/auditing"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
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

// mechanism is what isolates a workload, as it is seen in force: what brings it a
// kernel of its own, if that is known, namespaces, filter, capabilities.
func (h *host) mechanism(f *meter.Facts, by string) (string, []report.Fact) {
	var words []string
	var parts []report.Fact
	add := func(name, value, word string) {
		parts = append(parts, report.Fact{Name: name, Value: value})
		if word != "" {
			words = append(words, word)
		}
	}
	switch {
	case by != "":
		add("kernel", f.Version, by)
	case h.other(f):
		add("kernel", f.Version, "a kernel of its own")
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

// isolatedBy is what brings a workload of ours a kernel of its own, in words, "" for
// nothing. Of those of others nobody tells it.
func (w *way) isolatedBy() string {
	switch {
	case w.ours && w.subject.Boundary == "gvisor":
		return "a kernel in user space"
	case w.machine == nil:
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

// surroundings are what the figures hold for.
func (c *comparison) surroundings(ctx context.Context, before string) []report.Fact {
	f := c.host.facts
	facts := []report.Fact{
		{Name: "kernel", Value: f.Sysname + " " + f.Release + " " + f.Machine},
		{Name: "system", Value: f.OS},
		{Name: "processors", Value: fmt.Sprintf("%d × %s", f.Processors, f.CPU)},
		{Name: "memory", Value: report.Bytes.Format(float64(f.Memory))},
		{Name: "control groups", Value: meter.CgroupLayout()},
		{Name: "load before", Value: before},
		{Name: "load after", Value: meter.Load()},
		{Name: "image", Value: c.Image},
		{Name: "command", Value: c.what()},
	}
	if c.wants(Neighbours) {
		facts = append(facts, report.Fact{Name: report.NeighbourLimits, Value: strings.Join(neighbourLimits, " ")})
	}
	for _, p := range auditing.Products(ctx, auditing.Run) {
		facts = append(facts, report.Fact{Name: p.Name, Value: p.Version})
	}
	for i := range facts {
		if facts[i].Value == "" {
			facts[i].Value = "unknown"
		}
		facts[i].Value = fit(facts[i].Value, report.MaxText)
	}
	return facts
}

// what is the program whose start is measured.
func (c *comparison) what() string {
	if len(c.Command) == 0 {
		return "a program of ours that prints one line"
	}
	return safetext.Command(c.Command)
}
