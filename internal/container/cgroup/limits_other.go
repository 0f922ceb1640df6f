package cgroup

import (
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// network converts traffic class and priorities, which only v1 has.
func (d *demand) network(n *specs.LinuxNetwork) {
	if n == nil {
		return
	}
	if id := value(n.ClassID); id != 0 {
		d.add("network class", "net_cls", "", func(l *limit) { l.res.NetClsClassid = id })
	}
	if len(n.Priorities) == 0 {
		return
	}
	d.add("network priority", "net_prio", "", func(l *limit) {
		for _, p := range n.Priorities {
			if !isWord(p.Name) || len(p.Name) > 15 {
				d.invalid("network priority", "%q is not the name of an interface", p.Name)
			}
			l.res.NetPrioIfpriomap = append(l.res.NetPrioIfpriomap,
				&cgroups.IfPrioMap{Interface: p.Name, Priority: int64(p.Priority)})
		}
	})
}

func (d *demand) rdma(m map[string]specs.LinuxRdma) {
	if len(m) == 0 {
		return
	}
	d.add("rdma limit", "rdma", "rdma", func(l *limit) {
		l.res.Rdma = make(map[string]cgroups.LinuxRdma, len(m))
		for name, r := range m {
			if !isWord(name) {
				d.invalid("rdma limit", "%q is not the name of a device", name)
			}
			l.res.Rdma[name] = cgroups.LinuxRdma{HcaHandles: r.HcaHandles, HcaObjects: r.HcaObjects}
		}
		l.files = []string{"rdma.max"}
	})
}

// isWord reports whether s may stand in a line of space-separated words.
func isWord(s string) bool {
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f })
}

// The core files of v2 that may be set by a workload's configuration. The
// others move processes (cgroup.procs would take any process of the host) or
// are this package's own business.
var unifiedCore = []string{"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"}

const maxUnifiedValue = 4096 // a page, the kernel's limit for one write

// unified converts raw v2 settings, "controller.file" to value. On a hybrid
// machine they are possible for those controllers that v2 has there.
func (d *demand) unified(m map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		name := "unified setting " + quote(key)
		controller, rest, ok := strings.Cut(key, ".")
		switch {
		case !ok || rest == "" || !isWord(key) || strings.ContainsAny(key, "/"):
			d.invalid(name, "want CONTROLLER.FILE")
			continue
		case len(m[key]) > maxUnifiedValue || strings.Contains(m[key], "\x00"):
			d.invalid(name, "the value is too long or holds a zero byte")
			continue
		case controller == "cgroup" && !slices.Contains(unifiedCore, key):
			d.invalid(name, "not a limit")
			continue
		case controller == "cgroup" && d.lay.V2 != "":
			d.limits = append(d.limits, unifiedLimit(name, "", key, m[key]))
			continue
		case d.lay.V2 == "":
			d.fail(&MissingError{name, controller, "no cgroup v2 hierarchy is mounted"})
			continue
		case !d.lay.onV2(controller):
			reason := "the kernel lacks it, or it was not handed down to this cgroup file system"
			if _, bound := d.lay.onV1(controller); bound || controller == "io" && d.lay.Mode == ModeHybrid {
				reason = "on this machine it is bound to cgroup v1"
			}
			d.fail(&MissingError{name, controller, reason})
			continue
		}
		d.limits = append(d.limits, unifiedLimit(name, controller, key, m[key]))
	}
}

func unifiedLimit(name, controller, key, text string) limit {
	return limit{
		name: name, controller: controller, v2: true, files: []string{key},
		res: cgroups.Resources{Unified: map[string]string{key: text}},
	}
}

// quote shortens and quotes a hostile key for an error message.
func quote(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s), "?")
}
