package container

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

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
		if !m.bind || m.shown == nil || tree(m.shown) != src {
			continue
		}
		attrs := m.opts.recAttrs.set
		if m.idmap || !m.opts.recursive { // else it may be in what is mounted below, which is as it was
			attrs |= m.opts.attrs.set
		}
		if attrs&unix.MOUNT_ATTR_RDONLY != 0 {
			return 0, fmt.Errorf("%s does not exist in the volume at %s, which is read-only", loc.full(), m.dest)
		}
		source, onHost := m.inside.(dirTree)
		if !m.idmap || !onHost {
			continue
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
