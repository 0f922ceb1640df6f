package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
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
	for _, m := range p.mounts {
		if !m.bind && m.opts.attrs.set&unix.MOUNT_ATTR_RDONLY != 0 {
			p.setAttr(m.slot, attrs{set: unix.MOUNT_ATTR_RDONLY}, 0, false, m.dest+" is complete: read-only")
		}
	}
	if p.spec.Root != nil && p.spec.Root.Readonly {
		p.setAttr(p.root, attrs{set: unix.MOUNT_ATTR_RDONLY}, 0, false, "the root is complete: read-only")
	}
	p.planHooks()
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
	p.prog.Go("run the createContainer hooks in the container's", func(value func(launch.Slot) int) error {
		return hooks(CreateContainer, value(p.first))
	})
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

// planFS makes any file system but the ones with a namespace of their own.
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

// attach moves a detached mount to where loc leads, making what is missing.
func (p *planner) attach(slot launch.Slot, loc location, file bool, why string) error {
	target, err := p.makeTarget(loc, file)
	if err != nil {
		return err
	}
	p.prog.Do(launch.Host, launch.MoveMount, why, launch.Use(slot), launch.Str(""), launch.Use(target), launch.Str(""), moveBetween)
	return nil
}

// makeTarget opens a mount point, after making its missing components: in
// steps, each directory by its parent's descriptor.
func (p *planner) makeTarget(loc location, file bool) (launch.Slot, error) {
	if len(loc.missing) == 0 {
		if loc.mode.IsDir() == file {
			if file {
				return 0, fmt.Errorf("%s is a directory, the source is not", loc.path)
			}
			return 0, fmt.Errorf("%s is no directory, the source is", loc.path)
		}
		return p.openInside(loc.path, false), nil
	}
	dir, err := p.makeDirectories(loc, file)
	if err != nil {
		return 0, err
	}
	if !file && p.unmapped[dir] {
		return p.openInside(loc.full(), true), nil
	}
	if !file {
		return dir, nil
	}
	name := loc.missing[len(loc.missing)-1]
	p.prog.Do(launch.Host, launch.Mknodat, "a mount point", launch.Use(dir), launch.Str(name), launch.Flag(unix.S_IFREG|0o644, "S_IFREG|0644"), launch.Int(0))
	if err := p.ownInside(dir, name, 0, 0); err != nil {
		return 0, err
	}
	p.added(loc.full(), 0o644, "")
	if p.unmapped[dir] {
		return p.openInside(loc.full(), false), nil
	}
	target := p.prog.Slot("at")
	p.openAt(dir, name, target, false)
	return target, nil
}

// makeDirectories makes the missing directories of loc, all but the last one
// when that is to be a file, and returns the innermost, opened.
func (p *planner) makeDirectories(loc location, butLast bool) (launch.Slot, error) {
	dir, err := p.openForMaking(loc)
	if err != nil {
		return 0, err
	}
	at := loc.path
	names := loc.missing
	if butLast {
		names = names[:len(names)-1]
	}
	for _, name := range names {
		p.prog.Do(launch.Host, launch.Mkdirat, "a mount point", launch.Use(dir), launch.Str(name), launch.Flag(0o755, "0755"))
		if err := p.ownInside(dir, name, 0, 0); err != nil {
			return 0, err
		}
		next := p.prog.Slot("at")
		p.openAt(dir, name, next, true)
		if p.unmapped[dir] {
			p.unmapped[next] = true
		}
		at, dir = path.Join(at, name), next
		p.added(at, fs.ModeDir|0o755, "")
	}
	return dir, nil
}

// openForMaking opens the directory of loc in which something is to be made. In
// an ID-mapped volume the host's root has no ID of its own and can make nothing
// (EOVERFLOW): it works in the source itself, in the directory that planning
// has looked at, where owners are as on disk and root's are root's inside.
func (p *planner) openForMaking(loc location) (launch.Slot, error) {
	src, rel := p.view.lookup(loc.path)
	for _, m := range p.mounts {
		source, onHost := m.inside.(dirTree)
		if !m.idmap || !onHost || m.shown == nil || tree(m.shown) != src {
			continue
		}
		if (m.opts.attrs.set|m.opts.recAttrs.set)&unix.MOUNT_ATTR_RDONLY != 0 {
			return 0, fmt.Errorf("%s does not exist in the volume at %s, which is read-only", loc.full(), m.dest)
		}
		if m.plain == 0 {
			fd, err := unix.FcntlInt(uintptr(source.fd), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				return 0, os.NewSyscallError("fcntl", err)
			}
			m.plain = p.prog.Given("source", fd, m.spec.Source+" without its ID map, to make mount points in")
		}
		if rel == "" {
			rel = "."
		}
		slot := p.prog.Slot("at")
		resolve := uint64(0)
		if !m.opts.recursive {
			resolve = unix.RESOLVE_NO_XDEV // what is mounted there on the host is not in the volume
		}
		p.openWith(m.plain, rel, slot, true, resolve)
		if p.unmapped == nil {
			p.unmapped = map[launch.Slot]bool{}
		}
		p.unmapped[slot] = true
		return slot, nil
	}
	return p.openInside(loc.path, true), nil
}

// added tells the view of something that the program makes.
func (p *planner) added(at string, mode fs.FileMode, link string) {
	src, rel := p.view.lookup(at)
	if l, ok := src.(*layeredTree); ok {
		l.added.put(rel, mode, link)
	}
}

// ownInside gives a new file to a user inside.
func (p *planner) ownInside(dir launch.Slot, name string, uid, gid uint32) error {
	ids := p.ids
	if p.unmapped[dir] {
		ids = idMap{}
	}
	if !ids.active() && uid == 0 && gid == 0 {
		return nil
	}
	u, err := ids.uid(uid)
	if err != nil {
		return err
	}
	g, err := ids.gid(gid)
	if err != nil {
		return err
	}
	p.prog.Do(launch.Host, launch.Fchownat, "", launch.Use(dir), launch.Str(name), launch.Int(int(u)), launch.Int(int(g)),
		launch.Flag(unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"))
	return nil
}

// openInside opens a resolved path of the container. A symbolic link that
// appeared since, or a way out, is an error of the kernel's.
func (p *planner) openInside(at string, directory bool) launch.Slot {
	slot := p.prog.Slot("at")
	rel := strings.TrimPrefix(at, "/")
	if rel == "" {
		rel = "."
	}
	p.openAt(p.root, rel, slot, directory)
	return slot
}

func (p *planner) openAt(dir launch.Slot, rel string, slot launch.Slot, directory bool) {
	p.openWith(dir, rel, slot, directory, 0)
}

// openWith is openAt with more RESOLVE_ flags.
func (p *planner) openWith(dir launch.Slot, rel string, slot launch.Slot, directory bool, resolve uint64) {
	flags, text := uint64(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC), "O_PATH|O_NOFOLLOW|O_CLOEXEC"
	if directory {
		flags, text = flags|unix.O_DIRECTORY, "O_PATH|O_DIRECTORY|O_NOFOLLOW|O_CLOEXEC"
	}
	how := launch.U64(flags, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS|resolve)
	limits := "RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS|RESOLVE_NO_MAGICLINKS"
	if resolve&unix.RESOLVE_NO_XDEV != 0 {
		limits += "|RESOLVE_NO_XDEV"
	}
	p.prog.Do(launch.Host, launch.Openat2, "", launch.Use(dir), launch.Str(rel),
		launch.Buf(how, "{"+text+", "+limits+"}"), launch.Int(len(how))).ToFD(slot)
}
