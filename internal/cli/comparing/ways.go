package comparing

import (
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// Ways are the labels of all ways.
func Ways() (labels []string) {
	for _, w := range (&comparison{}).all() {
		labels = append(labels, w.subject.Label)
	}
	return labels
}

// all are the ways that there are, in the order in which they are shown. The
// first is what the others are measured against.
func (c *comparison) all() []*way {
	own := func(label, boundary string, drive func(t tool) driver, flags ...string) *way {
		t := tool{program: c.Bulkhead, id: c.id, flags: slices.Concat(c.Flags, flags), others: []string{"bulkhead-dns"}}
		return &way{
			driver: drive(t), ours: true, flags: flags,
			subject: report.Subject{Label: label, Boundary: boundary, Engine: "bulkhead"},
		}
	}
	other := func(label string, d driver) *way {
		return &way{driver: d, subject: report.Subject{Label: label, Engine: label}}
	}
	process := func(t tool) driver { return &oursDriver{tool: t} }
	booted := func(t tool) driver { return &oursDriver{tool: t, machine: true} }
	// Three starts of a kind make a template of the image.
	cloned := func(t tool) driver { return &oursDriver{tool: t, machine: true, often: 3} }
	name := tenantName(c.id)
	shared := func(t tool) driver {
		return &tenant{oursDriver: oursDriver{tool: t, machine: true}, name: name, inspect: c.InspectTenant}
	}
	whole := func(t tool) driver {
		return &system{oursDriver: oursDriver{tool: t, machine: true}, image: c.System, prepare: c.prepareFrom}
	}
	ways := []*way{
		{driver: &direct{trusted: c.TrustImage}, subject: report.Subject{
			Label: "none", Boundary: report.Host, Note: "nothing isolates it: a process of this host, with the image's files and the host's /proc, /sys and /dev as its root directory",
		}},
		own("container", "container", process),
		own("gvisor", "gvisor", process, "--boundary", "gvisor"),
		own("vm-booted", "vm", booted, "--boundary", "vm", "--no-template"),
		own("vm", "vm", cloned, "--boundary", "vm"),
		own("tenant", "vm", shared, "--tenant", name),
		own("system", "vm", whole, "--boundary", "vm", "--systemd"),
	}
	for _, program := range runtimes {
		ways = append(ways, other(program, &ociRuntime{program: program}))
	}
	for _, p := range peers(c.id) {
		ways = append(ways, other(p.program[0], p))
	}
	return ways
}
