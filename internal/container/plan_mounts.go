package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// plannedMount is one mount of the runtime spec.
type plannedMount struct {
	spec   specs.Mount
	dest   string // absolute, cleaned
	at     string // where dest leads
	source string // of a bind mount from within the container's own root, absolute there
	bind   bool
	file   bool // the source is no directory
	idmap  bool
	ownMap bool // not the container's
	opts   mountOptions
	slot   launch.Slot
	inside tree // what the view shows there
	shown  *layeredTree
	plain  launch.Slot // the source as it is on the host, to make mount points in
}

// sortMounts reads the spec's mounts, in their order, and opens the sources of
// bind mounts for looking.
func (p *planner) sortMounts() error {
	for _, m := range p.spec.Mounts {
		pm, err := p.readMount(m)
		if err != nil {
			return fmt.Errorf("mount at %q: %w", m.Destination, err)
		}
		p.mounts = append(p.mounts, pm)
	}
	return nil
}

func (p *planner) readMount(m specs.Mount) (*plannedMount, error) {
	opts, err := parseMountOptions(m.Options)
	if err != nil {
		return nil, err
	}
	pm := &plannedMount{spec: m, opts: opts, dest: path.Clean("/" + m.Destination)}
	if m.Destination == "" {
		return nil, errors.New("no destination")
	}
	if rel, ok := p.withinRoot(pm.dest); ok {
		pm.dest = "/" + rel // some callers name the place on the host, as runc lets them
	}
	if pm.dest == "/" {
		return nil, errors.New("nothing can be mounted over the container's root")
	}
	pm.bind = opts.bind || m.Type == "bind"
	if opts.copyUp && (pm.bind || m.Type != "tmpfs") {
		return nil, errors.New("option tmpcopyup is for tmpfs")
	}
	pm.idmap = opts.idmap
	if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
		pm.idmap = true
		pm.ownMap = !slices.Equal(m.UIDMappings, p.ids.uids) || !slices.Equal(m.GIDMappings, p.ids.gids)
	}
	if pm.idmap && !pm.bind {
		return nil, errors.New("ID mapping is for bind mounts")
	}
	if pm.idmap && !pm.ownMap && !p.ids.active() {
		return nil, errors.New("ID mapping needs a user namespace or mappings of its own")
	}
	if !pm.bind {
		pm.opts.ofNewFS()
		pm.inside = &freshTree{}
		switch m.Type {
		case "proc":
			if slices.Contains(opts.data, "subset=pid") {
				break // none of what masks and read-only paths are about (proc(5))
			}
			pm.inside, err = p.hostTree("/proc")
		case "sysfs":
			pm.inside, err = p.hostTree("/sys")
		case "":
			err = errors.New("no type")
		}
		return pm, err
	}
	return pm, p.lookAtSource(pm)
}

// hostTree opens a directory of the host for looking.
func (p *planner) hostTree(dir string) (tree, error) {
	t, err := p.facts.host(dir)
	if err != nil {
		return nil, err
	}
	p.held = append(p.held, t.fd)
	return t, nil
}

func (p *planner) lookAtSource(pm *plannedMount) error {
	if !filepath.IsAbs(pm.spec.Source) {
		pm.spec.Source = filepath.Join(p.cfg.Bundle, pm.spec.Source)
	}
	if len(pm.opts.data) > 0 {
		return fmt.Errorf("option %q is not one of a bind mount", pm.opts.data[0])
	}
	if rel, ok := p.withinRoot(pm.spec.Source); ok {
		pm.source = "/" + rel
		return nil
	}
	src, err := p.hostTree(pm.spec.Source)
	if p.dry && errors.Is(err, fs.ErrNotExist) && slices.Contains(p.cfg.MadeDirs, pm.spec.Source) {
		pm.inside = &freshTree{}
		return nil
	}
	if p.dry && errors.Is(err, fs.ErrNotExist) {
		pm.file, pm.inside = true, fileTree{0o644} // one of the engine's files
		return nil
	}
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(src.(dirTree).fd, &st); err != nil {
		return fmt.Errorf("source: %w", &os.PathError{Op: "stat", Path: pm.spec.Source, Err: err})
	}
	pm.inside = src
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		pm.file = true
		pm.inside = fileTree{fileMode(st.Mode)}
	}
	return nil
}

// withinRoot returns a host path relative to the root file system that it lies
// in.
func (p *planner) withinRoot(at string) (string, bool) {
	if p.cfg.Layers != nil || p.rootPath == "" {
		return "", false
	}
	return within(p.rootPath, path.Clean(at))
}

// lookInside finds a source that lies in the container's root as it is by
// then, with the mounts that come before. Symbolic links in it are the
// container's: they do not lead to the host's files.
func (p *planner) lookInside(m *plannedMount) (location, error) {
	loc, err := p.view.resolve(m.source)
	if err == nil && len(loc.missing) > 0 {
		err = &os.PathError{Op: "open", Path: m.spec.Source, Err: fs.ErrNotExist}
	}
	if err != nil {
		return loc, fmt.Errorf("source: %w", err)
	}
	m.file = !loc.mode.IsDir()
	m.inside = fileTree{loc.mode}
	if below, rel := p.view.lookup(loc.path); below != nil && !m.file {
		m.inside = subTree{below, rel}
	}
	return loc, nil
}

// procFiles are the only places in /proc that something else may be mounted
// on: files that LXCFS and the like provide.
var procFiles = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
	"/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// checkTarget refuses mounts that would cover what the masks and read-only
// paths protect, wherever symbolic links of the image lead them, and those that
// a link in a volume leads out of the volume: somebody else may have put it there.
func checkTarget(pm *plannedMount, loc location) error {
	at := loc.full()
	if at == "/" {
		return errors.New("a symbolic link leads to the container's root, which nothing may cover")
	}
	if v := loc.left(); v != "" {
		return fmt.Errorf("a symbolic link in what is mounted at %s leads out of it, to %s", v, at)
	}
	if pm.spec.Type == "proc" || pm.spec.Type == "sysfs" {
		if loc.crossed {
			return fmt.Errorf("a symbolic link leads to %s: %s must be mounted on ordinary directory", at, pm.spec.Type)
		}
		return nil
	}
	if _, under := within("/proc", at); under && !slices.Contains(procFiles, at) {
		if at == "/proc" && pm.bind && isProc(pm.spec.Source) {
			return nil
		}
		return fmt.Errorf("%s is inside /proc", at)
	}
	return nil
}

func isProc(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}

// planMounts makes and attaches every mount, then what protects them, and
// pivots.
func (p *planner) planMounts() error {
	for _, m := range p.mounts {
		if err := p.planMount(m); err != nil {
			return fmt.Errorf("mount at %q: %w", m.dest, err)
		}
	}
	if err := p.planDevices(); err != nil {
		return err
	}
	if err := p.planMasks(); err != nil {
		return err
	}
	if err := p.planWorkingDirectory(); err != nil {
		return err
	}
	p.planHooks() // what they bring may need files and mount points
	for _, m := range p.mounts {
		if !m.bind && m.opts.attrs.set&unix.MOUNT_ATTR_RDONLY != 0 {
			p.setAttr(m.slot, attrs{set: unix.MOUNT_ATTR_RDONLY}, 0, false, m.dest+" is complete: read-only")
		}
	}
	if p.spec.Root != nil && p.spec.Root.Readonly {
		p.setAttr(p.root, attrs{set: unix.MOUNT_ATTR_RDONLY}, 0, false, "the root is complete: read-only")
	}
	p.prog.Await(p.early, 0, "the first process needs the host's /proc no more")
	p.planPivot()
	p.letGo(launch.Init)
	return nil
}

// planHooks runs the hooks that see the container before it is closed off.
func (p *planner) planHooks() {
	hooks := p.cfg.Hooks
	if hooks == nil {
		return
	}
	p.prog.Go("run the prestart and createRuntime hooks in the host's namespaces", func(value func(launch.Slot) int) error {
		// The host's thread is in the container's namespaces by now: use another.
		done := make(chan error)
		go func() { done <- hooks(CreateRuntime, value(p.first)) }()
		return <-done
	})
	if p.ns.types[specs.PIDNamespace] {
		// They are told of the first process by its ID there: elsewhere that is another's.
		p.prog.Do(launch.Host, launch.Setns, "hooks are started in the container's pid namespace", launch.Use(p.pidfd), launch.Flag(unix.CLONE_NEWPID, "CLONE_NEWPID"))
	}
	// They are started by the host's thread, whose umask they have.
	p.prog.Do(launch.Host, launch.Umask, "the caller's, for what hooks make", launch.Use(p.umask))
	p.prog.Go("run the createContainer hooks in the container's", func(value func(launch.Slot) int) error {
		return hooks(CreateContainer, value(p.first))
	})
	p.prog.Do(launch.Host, launch.Umask, "modes are as written", launch.Int(0))
}

func (p *planner) planMount(m *plannedMount) error {
	loc, err := p.view.resolve(m.dest)
	if err != nil {
		return err
	}
	if err := checkTarget(m, loc); err != nil {
		return err
	}
	m.inheritMode(loc)
	if m.slot == 0 { // not made before the fork
		if err := p.planDetached(m); err != nil {
			return err
		}
	}
	if m.opts.copyUp && len(loc.missing) == 0 && loc.mode.IsDir() {
		p.planCopyUp(m, loc)
	}
	if err := p.attach(m.slot, loc, m.file, m.dest); err != nil {
		return err
	}
	m.at, m.shown = loc.full(), &layeredTree{below: m.inside}
	p.view.mount(m.at, m.shown)
	if m.opts.propagation != 0 {
		p.setAttr(m.slot, attrs{}, m.opts.propagation&^unix.MS_REC, m.opts.propagation&unix.MS_REC != 0, "propagation")
	}
	if m.spec.Type == "cgroup" && !m.bind {
		return p.planCgroupFiles(m, loc)
	}
	return nil
}

// planDetached makes the file system or the clone of a bind source.
func (p *planner) planDetached(m *plannedMount) error {
	m.slot = p.prog.Slot(slotName(m.dest))
	switch {
	case m.bind:
		return p.planBind(m)
	case m.spec.Type == "proc":
		return p.planProc(m)
	case m.spec.Type == "cgroup":
		return p.planCgroupMount(m)
	case m.spec.Type == "cgroup2":
		return p.newFS(m.slot, "cgroup2", "", nil, m.opts.attrs.set, "cgroups")
	}
	return p.planFS(m)
}

func slotName(dest string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.TrimPrefix(dest, "/"))
}

func (p *planner) planBind(m *plannedMount) error {
	g := p.prog
	flags := cloneTree
	if m.opts.recursive {
		flags = cloneTreeRec
	}
	if m.source != "" {
		loc, err := p.lookInside(m)
		if err != nil {
			return err
		}
		flags = cloneEmpty
		if m.opts.recursive {
			flags = cloneEmptyRec
		}
		g.Do(launch.Host, launch.OpenTree, "bind "+m.dest+" to a place of its own", launch.Use(p.openInside(loc.path, false)), launch.Str(""), flags).ToFD(m.slot)
	} else {
		g.Do(launch.Host, launch.OpenTree, "bind "+m.dest, launch.AtCWD(), launch.Str(m.spec.Source), flags).ToFD(m.slot)
	}
	a := m.opts.attrs
	if m.idmap {
		if err := p.planIDMap(m); err != nil {
			return err
		}
	}
	if !a.empty() {
		p.setAttr(m.slot, a, 0, false, "")
	}
	if !m.opts.recAttrs.empty() {
		p.setAttr(m.slot, m.opts.recAttrs, 0, true, "for all mounts below it too")
	}
	if m.opts.propagation == 0 {
		m.opts.propagation = unix.MS_PRIVATE | unix.MS_REC
	}
	return nil
}
