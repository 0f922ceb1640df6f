package container

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

// newFS makes a file system and its detached mount.
func (p *planner) newFS(slot launch.Slot, fstype, source string, options []string, flags uint64, why string) error {
	g := p.prog
	fs := g.Slot("fs")
	g.Do(launch.Host, launch.Fsopen, why, launch.Str(fstype), launch.Flag(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).ToFD(fs)
	if source != "" {
		p.fsOption(fs, "source", source)
	}
	p.fsOptions(launch.Host, fs, options)
	g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), fsCreate, launch.Null(), launch.Null(), launch.Int(0))
	g.Do(launch.Host, launch.Fsmount, "", launch.Use(fs), launch.Flag(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"),
		launch.Flag(uintptr(flags), attrNames(flags))).ToFD(slot)
	return nil
}

func (p *planner) fsOptions(a launch.Actor, fs launch.Slot, options []string) {
	for _, o := range options {
		if k, v, ok := strings.Cut(o, "="); ok {
			p.prog.Do(a, launch.Fsconfig, "", launch.Use(fs), fsString, launch.Str(k), launch.Str(v), launch.Int(0))
		} else {
			p.prog.Do(a, launch.Fsconfig, "", launch.Use(fs), fsFlag, launch.Str(o), launch.Null(), launch.Int(0))
		}
	}
}

// inheritMode gives a tmpfs without a mode of its own that of the directory
// that it covers, as engines have come to expect: /tmp stays sticky, a private
// directory private.
func (m *plannedMount) inheritMode(loc location) {
	if m.bind || m.spec.Type != "tmpfs" || len(loc.missing) > 0 {
		return
	}
	for _, o := range m.opts.data {
		if strings.HasPrefix(o, "mode=") {
			return
		}
	}
	m.opts.data = append(m.opts.data, "mode="+strconv.FormatUint(uint64(permissions(loc.mode)), 8))
}

// planFS makes any file system but the ones with a namespace of their own.
func (p *planner) planFS(m *plannedMount) error {
	options, err := p.mapOwners(m)
	if err != nil {
		return err
	}
	source := m.spec.Source
	if source == m.spec.Type || source == "" {
		source = m.spec.Type
	}
	// Read-only comes last: mount points may have to be made in it.
	flags := m.opts.attrs.set &^ unix.MOUNT_ATTR_RDONLY
	return p.newFS(m.slot, m.spec.Type, source, options, flags, m.spec.Type+" for "+m.dest)
}

// mapOwners turns uid= and gid= options, which are IDs inside, into the host's:
// the host makes the mount. A tmpfs belongs to root inside.
func (p *planner) mapOwners(m *plannedMount) ([]string, error) {
	if !p.ids.active() {
		return m.opts.data, nil
	}
	var out []string
	seen := map[string]bool{}
	add := func(key, value string) error {
		var id uint32
		if _, err := fmt.Sscanf(value, "%d", &id); err != nil {
			return fmt.Errorf("option %s=%s: want a number", key, value)
		}
		host, err := p.ids.uid(id)
		if key == "gid" {
			host, err = p.ids.gid(id)
		}
		if err != nil {
			return fmt.Errorf("option %s=%s: %w", key, value, err)
		}
		out = append(out, fmt.Sprintf("%s=%d", key, host))
		seen[key] = true
		return nil
	}
	for _, o := range m.opts.data {
		k, v, _ := strings.Cut(o, "=")
		if k == "uid" || k == "gid" {
			if err := add(k, v); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, o)
	}
	if m.spec.Type == "tmpfs" {
		for _, k := range []string{"uid", "gid"} {
			if !seen[k] {
				if err := add(k, "0"); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, nil
}

// planProc mounts proc for the container's pid namespace.
func (p *planner) planProc(m *plannedMount) error {
	g := p.prog
	flags := m.opts.attrs.set
	why := "processes of the container's pid namespace"
	if !p.ns.types[specs.PIDNamespace] {
		return p.newFS(m.slot, "proc", "proc", m.opts.data, flags, "all processes of the host")
	}
	if p.facts.procPidns {
		ns, fs := g.Slot("pidns"), g.Slot("fs")
		g.Do(launch.Host, launch.Openat, "", launch.AtCWD(), launch.Pathf("/proc/%d/ns/pid", p.first),
			launch.Flag(unix.O_RDONLY|unix.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"), launch.Int(0)).ToFD(ns)
		g.Do(launch.Host, launch.Fsopen, why, launch.Str("proc"), launch.Flag(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).ToFD(fs)
		g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), fsFD, launch.Str("pidns"), launch.Null(), launch.Use(ns))
		p.fsOption(fs, "source", "proc")
		p.fsOptions(launch.Host, fs, m.opts.data)
		g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), fsCreate, launch.Null(), launch.Null(), launch.Int(0))
		g.Do(launch.Host, launch.Fsmount, "", launch.Use(fs), launch.Flag(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"), launch.Flag(uintptr(flags), attrNames(flags))).ToFD(m.slot)
		return nil
	}
	// An older proc takes its caller's pid namespace: a child in it makes the
	// mount, and shares its descriptors with us.
	pid, fs, mnt := g.Slot("mounter"), g.Slot("proc_fs"), g.Slot("proc_mount")
	g.Do(launch.Host, launch.Openat, "a number for the child to put the mount at", launch.AtCWD(), launch.Str("/dev/null"),
		launch.Flag(unix.O_PATH|unix.O_CLOEXEC, "O_PATH|O_CLOEXEC"), launch.Int(0)).ToFD(m.slot)
	g.Do(launch.Host, launch.Setns, "children from here on are in the container's pid namespace", launch.Use(p.pidfd), launch.Flag(unix.CLONE_NEWPID, "CLONE_NEWPID"))
	g.Fork(launch.Host, launch.Mounter, unix.CLONE_FILES, "CLONE_FILES", pid, 0, "a child that shares our descriptors")
	a := launch.Mounter
	g.Do(a, launch.Fsopen, why, launch.Str("proc"), launch.Flag(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).To(fs)
	p.fsOptions(a, fs, []string{"source=proc"})
	p.fsOptions(a, fs, m.opts.data)
	g.Do(a, launch.Fsconfig, "", launch.Use(fs), fsCreate, launch.Null(), launch.Null(), launch.Int(0))
	g.Do(a, launch.Fsmount, "", launch.Use(fs), launch.Flag(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"), launch.Flag(uintptr(flags), attrNames(flags))).To(mnt)
	g.Do(a, launch.Dup3, "", launch.Use(mnt), launch.Use(m.slot), launch.Flag(unix.O_CLOEXEC, "O_CLOEXEC"))
	g.Do(a, launch.Close, "", launch.Use(mnt))
	g.Do(a, launch.Close, "", launch.Use(fs))
	mounted := g.Tell(a, 0, "proc is mounted")
	g.Do(a, launch.ExitGroup, "", launch.Int(0))
	g.Await(mounted, 0, "proc is mounted")
	g.Do(launch.Host, launch.Wait4, "", launch.Use(pid), launch.Null(), launch.Int(0), launch.Null())
	return nil
}
