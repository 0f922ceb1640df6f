package container

import (
	"fmt"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// planCgroupMount makes what a mount of type cgroup shows: on pure v2 the
// hierarchy, otherwise a tmpfs that planCgroupFiles fills.
func (p *planner) planCgroupMount(m *plannedMount) error {
	lay := p.facts.cgroups
	if len(lay.V1) > 0 {
		// It cannot be written to at the end like other mounts, for the
		// hierarchies in it have to be attached first.
		return p.newFS(m.slot, "tmpfs", "tmpfs", []string{"mode=755", "size=4096", "nr_inodes=" + itoa(4*len(lay.V1)+8)},
			m.opts.attrs.set&^unix.MOUNT_ATTR_RDONLY, "a directory for the cgroup hierarchies")
	}
	if p.ns.types[specs.CgroupNamespace] {
		return p.newFS(m.slot, "cgroup2", "cgroup", nil, m.opts.attrs.set, "limits of the container")
	}
	return p.bindCgroup(m.slot, p.cgroupDirOf(lay.V2), m.opts.attrs)
}

// planCgroupFiles mounts each v1 hierarchy, and v2 beside them, in the tmpfs
// at loc.
func (p *planner) planCgroupFiles(m *plannedMount, loc location) error {
	lay := p.facts.cgroups
	if len(lay.V1) == 0 {
		return nil
	}
	for _, h := range lay.V1 {
		name := path.Base(h.Mount)
		slot := p.prog.Slot("cgroup_" + slotName(name))
		if p.ns.types[specs.CgroupNamespace] {
			options := h.Controllers
			if len(options) == 0 {
				options = []string{"none", h.Name}
			}
			if err := p.newFS(slot, "cgroup", "cgroup", options, m.opts.attrs.set, "its "+name+" cgroup"); err != nil {
				return err
			}
		} else if err := p.bindCgroup(slot, p.cgroupDirOf(h.Mount), m.opts.attrs); err != nil {
			return err
		}
		if err := p.attachNew(slot, path.Join(loc.full(), name)); err != nil {
			return err
		}
		for _, c := range h.Controllers {
			if c != name && len(h.Controllers) > 1 {
				if err := p.planLink(path.Join(loc.full(), c), name); err != nil {
					return err
				}
			}
		}
	}
	if lay.V2 == "" {
		return nil
	}
	slot := p.prog.Slot("cgroup_unified")
	if p.ns.types[specs.CgroupNamespace] {
		if err := p.newFS(slot, "cgroup2", "cgroup2", nil, m.opts.attrs.set, "its cgroup of version 2"); err != nil {
			return err
		}
	} else if err := p.bindCgroup(slot, p.cgroupDirOf(lay.V2), m.opts.attrs); err != nil {
		return err
	}
	return p.attachNew(slot, path.Join(loc.full(), "unified"))
}

// attachNew attaches a mount at a directory that does not exist yet.
func (p *planner) attachNew(slot launch.Slot, at string) error {
	loc, err := p.view.resolve(at)
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return p.attach(slot, loc, false, "")
}

// cgroupDirOf is the container's own directory in a hierarchy of the host.
func (p *planner) cgroupDirOf(mount string) string {
	if p.cfg.Cgroup == nil {
		return mount
	}
	return path.Join(mount, p.cfg.Cgroup.Path())
}

// bindCgroup shows the container's own cgroup by a bind mount, for want of a
// cgroup namespace.
func (p *planner) bindCgroup(slot launch.Slot, dir string, a attrs) error {
	p.prog.Do(launch.Host, launch.OpenTree, "its own cgroup", launch.AtCWD(), launch.Str(dir), cloneTree).ToFD(slot)
	p.setAttr(slot, a, 0, false, "")
	return nil
}
