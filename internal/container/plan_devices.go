package container

import (
	"fmt"
	"io/fs"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// device is a node in the container's /dev.
type device struct {
	path         string
	kind         uint32 // S_IFCHR, S_IFBLK, S_IFIFO
	mode         uint32
	major, minor uint32
	uid, gid     uint32
}

// defaultDevices are those that every container gets, runtime-spec
// config-linux.md#default-devices.
var defaultDevices = []device{
	{path: "/dev/null", kind: unix.S_IFCHR, mode: 0o666, major: 1, minor: 3},
	{path: "/dev/zero", kind: unix.S_IFCHR, mode: 0o666, major: 1, minor: 5},
	{path: "/dev/full", kind: unix.S_IFCHR, mode: 0o666, major: 1, minor: 7},
	{path: "/dev/random", kind: unix.S_IFCHR, mode: 0o666, major: 1, minor: 8},
	{path: "/dev/urandom", kind: unix.S_IFCHR, mode: 0o666, major: 1, minor: 9},
	{path: "/dev/tty", kind: unix.S_IFCHR, mode: 0o666, major: 5, minor: 0},
}

var deviceLinks = []struct{ path, to string }{
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"},
	{"/dev/ptmx", "pts/ptmx"},
}

// planDevices fills /dev, unless the caller brings a /dev of its own.
func (p *planner) planDevices() error {
	for _, m := range p.mounts {
		if m.dest == "/dev" && m.bind {
			return p.planConsole()
		}
	}
	devices, err := p.devices()
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := p.planDevice(d); err != nil {
			return fmt.Errorf("device %s: %w", d.path, err)
		}
	}
	for _, l := range deviceLinks {
		if err := p.planLink(l.path, l.to); err != nil {
			return fmt.Errorf("%s: %w", l.path, err)
		}
	}
	return p.planConsole()
}

// devices are the default ones and the spec's, the latter winning.
func (p *planner) devices() ([]device, error) {
	out := append([]device(nil), defaultDevices...)
	for _, d := range p.spec.Linux.Devices {
		n := device{path: path.Clean("/" + d.Path), mode: 0o666}
		switch d.Type {
		case "c", "u":
			n.kind = unix.S_IFCHR
		case "b":
			n.kind = unix.S_IFBLK
		case "p":
			n.kind = unix.S_IFIFO
		default:
			return nil, fmt.Errorf("device %q: unknown type %q", d.Path, d.Type)
		}
		if d.Major < 0 || d.Minor < 0 || d.Major > 0xfff || d.Minor > 0xfffff {
			return nil, fmt.Errorf("device %q: numbers %d:%d out of range", d.Path, d.Major, d.Minor)
		}
		n.major, n.minor = uint32(d.Major), uint32(d.Minor)
		if d.FileMode != nil {
			n.mode = uint32(*d.FileMode & 0o7777)
		}
		if d.UID != nil {
			n.uid = *d.UID
		}
		if d.GID != nil {
			n.gid = *d.GID
		}
		replaced := false
		for i := range out {
			if out[i].path == n.path {
				out[i], replaced = n, true
			}
		}
		if !replaced {
			out = append(out, n)
		}
	}
	return out, nil
}

func (p *planner) planDevice(d device) error {
	loc, err := p.view.resolve(d.path)
	if err != nil {
		return err
	}
	if _, under := within("/proc", loc.full()); under {
		return fmt.Errorf("a symbolic link leads to %s", loc.full())
	}
	switch {
	case d.kind != unix.S_IFIFO && p.deadAt(loc):
		return p.planBoundDevice(d, loc)
	case len(loc.missing) == 0:
		return p.existingDevice(d, loc)
	}
	dir, err := p.makeDirectories(loc, true)
	if err != nil {
		return err
	}
	if err := p.planNode(d, dir, loc.missing[len(loc.missing)-1]); err != nil {
		return err
	}
	p.added(loc.full(), fs.ModeDevice, "")
	return nil
}

// planNode makes a device node in a directory.
func (p *planner) planNode(d device, dir launch.Slot, name string) error {
	kind := map[uint32]string{unix.S_IFCHR: "S_IFCHR", unix.S_IFBLK: "S_IFBLK", unix.S_IFIFO: "S_IFIFO"}[d.kind]
	p.prog.Do(launch.Host, launch.Mknodat, d.path, launch.Use(dir), launch.Str(name),
		launch.Flag(uintptr(d.kind|d.mode), fmt.Sprintf("%s|%#o", kind, d.mode)),
		launch.Flag(uintptr(unix.Mkdev(d.major, d.minor)), fmt.Sprintf("makedev(%d, %d)", d.major, d.minor)))
	return p.ownInside(dir, name, d.uid, d.gid)
}

// deadAt reports whether a device node at loc cannot be opened: it would be in the
// overlay, or in a mount, that has "nodev".
func (p *planner) deadAt(loc location) bool {
	if p.cfg.Layers == nil {
		return false
	}
	holder, _ := p.view.holder(loc.path)
	return holder.at == "/" || slices.ContainsFunc(p.mounts, func(m *plannedMount) bool {
		return m.at == holder.at && (m.opts.attrs.set|m.opts.recAttrs.set)&unix.MOUNT_ATTR_NODEV != 0
	})
}

// planBoundDevice binds a device to a place where a node would be dead, from a
// small file system that has nothing but such nodes. What is there already is
// covered: the mount point of an earlier start, or a file of the image.
func (p *planner) planBoundDevice(d device, loc location) error {
	if v := loc.left(); v != "" {
		return fmt.Errorf("a symbolic link in what is mounted at %s leads out of it, to %s", v, loc.full())
	}
	g := p.prog
	if p.nodes == 0 {
		p.nodes = g.Slot("nodes")
		err := p.newFS(p.nodes, "tmpfs", "tmpfs", []string{"mode=755", "size=4096", "nr_inodes=" + itoa(len(defaultDevices)+len(p.spec.Linux.Devices)+2)},
			unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "nodes of devices whose places have nodev")
		if err != nil {
			return err
		}
		g.Do(launch.Host, launch.MoveMount, "only what is attached can be cloned", launch.Use(p.nodes), launch.Str(""), launch.AtCWD(), launch.Str(p.layersPath()), moveFrom)
	}
	p.bound++
	name := itoa(p.bound)
	if err := p.planNode(d, p.nodes, name); err != nil {
		return err
	}
	bound := g.Slot("device")
	g.Do(launch.Host, launch.OpenTree, "bind "+d.path, launch.Use(p.nodes), launch.Str(name), cloneTree).ToFD(bound)
	if err := p.attach(bound, loc, true, ""); err != nil {
		return err
	}
	p.view.mount(loc.full(), fileTree{fs.ModeDevice})
	return nil
}

// existingDevice accepts a node that the root file system brings only when it
// is the one that is wanted.
func (p *planner) existingDevice(d device, loc location) error {
	src, rel := p.view.lookup(loc.path)
	if l, ok := src.(*layeredTree); ok {
		src = l.below
	}
	if dt, ok := src.(dirTree); ok {
		var st unix.Stat_t
		if err := unix.Fstatat(dt.fd, rel, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && !loc.crossed &&
			st.Mode&unix.S_IFMT == d.kind && (d.kind == unix.S_IFIFO || st.Rdev == unix.Mkdev(d.major, d.minor)) {
			return nil
		}
	}
	return fmt.Errorf("the root file system has something else at %s", loc.path)
}

func (p *planner) planLink(at, to string) error {
	dirLoc, err := p.view.resolve(path.Dir(at))
	if err != nil {
		return err
	}
	full := path.Join(dirLoc.full(), path.Base(at))
	if len(dirLoc.missing) == 0 {
		src, rel := p.view.lookup(full)
		if _, _, err := src.lstat(rel); err == nil {
			return nil // the root file system brings its own
		}
	}
	dir, err := p.makeDirectories(dirLoc, false)
	if err != nil {
		return err
	}
	p.prog.Do(launch.Host, launch.Symlinkat, "", launch.Str(to), launch.Use(dir), launch.Str(path.Base(at)))
	p.added(full, fs.ModeSymlink|0o777, to)
	return p.ownInside(dir, path.Base(at), 0, 0)
}

// planConsole binds the terminal over /dev/console.
func (p *planner) planConsole() error {
	if p.slave == 0 {
		return nil
	}
	loc, err := p.view.resolve("/dev/console")
	if err != nil {
		return fmt.Errorf("/dev/console: %w", err)
	}
	if loc.crossed {
		return fmt.Errorf("/dev/console: a symbolic link leads to %s", loc.full())
	}
	console := p.prog.Slot("console")
	p.prog.Do(launch.Host, launch.OpenTree, "the terminal as /dev/console", launch.Use(p.slave), launch.Str(""), cloneEmpty).ToFD(console)
	return p.attach(console, loc, true, "")
}

// planMasks covers what the container must not see and protects what it must
// not write.
func (p *planner) planMasks() error {
	if err := p.planMasked(); err != nil {
		return err
	}
	for _, at := range p.spec.Linux.ReadonlyPaths {
		loc, ok, err := p.existing(at)
		if err != nil {
			return fmt.Errorf("read-only path %q: %w", at, err)
		}
		if !ok || p.isMasked(loc.path) {
			continue
		}
		target, ro := p.openInside(loc.path, false), p.prog.Slot("ro")
		p.prog.Do(launch.Host, launch.OpenTree, "read-only: "+at, launch.Use(target), launch.Str(""), cloneEmptyRec).ToFD(ro)
		p.setAttr(ro, attrs{set: unix.MOUNT_ATTR_RDONLY}, 0, true, "")
		p.prog.Do(launch.Host, launch.MoveMount, "", launch.Use(ro), launch.Str(""), launch.Use(target), launch.Str(""), moveBetween)
	}
	return nil
}

// isMasked reports whether at is behind a mask already: then there is nothing
// left to protect, nor to find.
func (p *planner) isMasked(at string) bool {
	return slices.ContainsFunc(p.masked, func(mask string) bool {
		_, under := within(mask, at)
		return under
	})
}

func (p *planner) planMasked() error {
	// The first empty directory and the first null device, attached: later ones
	// are clones of them.
	var empty, null launch.Slot
	for _, at := range p.spec.Linux.MaskedPaths {
		loc, ok, err := p.existing(at)
		if err != nil {
			return fmt.Errorf("masked path %q: %w", at, err)
		}
		if !ok || p.isMasked(loc.path) {
			continue
		}
		p.masked = append(p.masked, loc.path)
		target := p.openInside(loc.path, false)
		mask := p.prog.Slot("mask")
		switch {
		case !loc.mode.IsDir() && null == 0:
			// Read-only, or root inside without a user namespace changes mode and
			// owner of the host's /dev/null. Devices can be written all the same.
			p.prog.Do(launch.Host, launch.OpenTree, "masked: "+at, launch.AtCWD(), launch.Str("/dev/null"), cloneTree).ToFD(mask)
			p.setAttr(mask, attrs{set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}, 0, false, "the host's null device cannot be changed through it")
			null = mask
		case !loc.mode.IsDir():
			p.prog.Do(launch.Host, launch.OpenTree, "masked: "+at, launch.Use(null), launch.Str(""), cloneEmpty).ToFD(mask)
		case empty == 0:
			if err := p.newFS(mask, "tmpfs", "tmpfs", []string{"size=4096", "nr_inodes=2"}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, "masked: "+at); err != nil {
				return err
			}
			empty = mask
		default:
			p.prog.Do(launch.Host, launch.OpenTree, "masked: "+at, launch.Use(empty), launch.Str(""), cloneEmpty).ToFD(mask)
		}
		p.prog.Do(launch.Host, launch.MoveMount, "", launch.Use(mask), launch.Str(""), launch.Use(target), launch.Str(""), moveBetween)
	}
	return nil
}

// existing resolves a path that may be absent, which is fine: nothing is there
// to be hidden.
func (p *planner) existing(at string) (location, bool, error) {
	loc, err := p.view.resolve(at)
	if err != nil {
		return loc, false, err
	}
	return loc, len(loc.missing) == 0, nil
}

// planWorkingDirectory finds out where the process's working directory is, and
// makes it where the image and the mounts have none, as every runtime does.
func (p *planner) planWorkingDirectory() error {
	cwd := p.spec.Process.Cwd
	if !path.IsAbs(cwd) {
		return fmt.Errorf("working directory %q is not absolute", cwd)
	}
	loc, err := p.view.resolve(cwd)
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	if len(loc.missing) == 0 {
		if !loc.mode.IsDir() {
			return fmt.Errorf("working directory %q is not a directory", cwd)
		}
		if !p.followsProc(loc) {
			p.proc.cwd = loc.path
		}
		return nil
	}
	if _, under := within("/proc", loc.full()); under {
		return fmt.Errorf("working directory %q does not exist", cwd)
	}
	p.proc.cwd = loc.full()
	_, err = p.makeDirectories(loc, false)
	return err
}

// followsProc tells whether a link of a proc file system is part of a path: such as
// self, which leads each process elsewhere.
func (p *planner) followsProc(loc location) bool {
	return slices.ContainsFunc(p.mounts, func(m *plannedMount) bool {
		return slices.Contains(loc.volumes, m.at) && (m.spec.Type == "proc" || m.bind && isProc(m.spec.Source))
	})
}
