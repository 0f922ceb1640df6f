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
	ours := func(flags ...string) tool {
		return tool{program: c.Bulkhead, flags: slices.Concat(c.Flags, flags), others: []string{"bulkhead-dns"}}
	}
	own := func(label, boundary string, d driver, flags ...string) *way {
		return &way{
			driver: d, ours: true, probe: flags,
			subject: report.Subject{Label: label, Boundary: boundary, Engine: "bulkhead"},
		}
	}
	other := func(label string, d driver) *way {
		return &way{driver: d, subject: report.Subject{Label: label, Engine: label}}
	}
	vm := []string{"--boundary", "vm"}
	booted := append(slices.Clip(vm), "--no-template")
	whole := append(slices.Clip(vm), "--systemd")
	name := newName("tenant")
	// Three runs make a template of the image.
	const often = 3
	return []*way{
		{driver: &direct{trusted: c.TrustImage}, subject: report.Subject{
			Label: "none", Boundary: report.Host, Note: "nothing isolates it: a process of this host, with the image's files and the host's /proc, /sys and /dev as its root directory",
		}},
		own("container", "container", &oursDriver{tool: ours()}),
		own("gvisor", "gvisor", &oursDriver{tool: ours("--boundary", "gvisor")}, "--boundary", "gvisor"),
		own("vm-booted", "vm", &oursDriver{tool: ours(booted...), machine: true}, booted...),
		own("vm", "vm", &oursDriver{tool: ours(vm...), machine: true, often: often}, vm...),
		own("tenant", "vm", &tenant{oursDriver: oursDriver{tool: ours("--tenant", name), machine: true}, name: name, inspect: c.InspectTenant}, "--tenant", name),
		own("system", "vm", &system{oursDriver: oursDriver{tool: ours(whole...), machine: true}, image: c.System, prepare: c.prepareFrom}, whole...),
		other("runc", &ociRuntime{program: "runc"}),
		other("crun", &ociRuntime{program: "crun"}),
		other("docker", &peer{tool: tool{program: []string{"docker"}, others: []string{"dockerd", "containerd"}}}),
		other("podman", &peer{tool: tool{program: []string{"podman"}}}),
	}
}
