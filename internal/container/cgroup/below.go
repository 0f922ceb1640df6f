package cgroup

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Below returns a Manager for joining a cgroup that the workload made below
// its own: sub is its path there. With controllers, such as "memory" or
// "cpu,cpuacct", only their v1 hierarchies are meant and the others stay as
// they are. The cgroup need not exist yet; Join finds out.
func (m *Manager) Below(sub string, controllers ...string) (*Manager, error) {
	for part := range strings.SplitSeq(sub, "/") {
		if part == ".." {
			return nil, fmt.Errorf("bad sub cgroup path: %q leads out of cgroup %s", sub, m.path)
		}
	}
	next := *m
	next.v1 = slices.Clone(m.v1)
	for _, c := range controllers {
		if m.dirOn(c) == "" {
			return nil, fmt.Errorf("unknown controller %q: no hierarchy of cgroup v1 has it", c)
		}
	}
	for i, d := range next.v1 {
		if len(controllers) == 0 || slices.ContainsFunc(controllers, func(c string) bool { return slices.Contains(d.Controllers, c) }) {
			next.v1[i].dir = path.Join(d.dir, sub)
		}
	}
	if len(controllers) == 0 {
		next.path = path.Join(m.path, sub)
		if m.v2 != "" {
			next.v2 = path.Join(m.v2, sub)
		}
	}
	return &next, nil
}
