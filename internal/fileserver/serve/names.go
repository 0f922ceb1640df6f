package serve

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

func (s *server) lookup(r *request, n *node) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	dir, done, err := s.nodes.descriptor(n)
	if err != nil {
		return err
	}
	defer done()
	return s.entry(r, n, dir, name)
}

// entry tells the guest of the entry name of a directory.
func (s *server) entry(r *request, n *node, dir int, name string) error {
	st, err := statBeneath(dir, name)
	if err != nil {
		return err
	}
	return s.tell(r, n, name, st)
}

func (s *server) tell(r *request, n *node, name string, st *unix.Statx_t) error {
	child, err := s.nodes.intern(n, name, st, true)
	if err != nil {
		return err
	}
	s.putEntry(r, child.id, st)
	s.nodes.put(child)
	return nil
}

// make creates an entry by one call and gives it to the caller. The call
// creates or fails; what is there right after may be another file all the same,
// if somebody else is at work in the directory. Such a file is of the volume
// too, and it is only touched if it is what the call makes: of that type and
// root's, which is this process. What cannot be given to the caller, for want of
// quota, say, is gone again.
func (s *server) make(r *request, n *node, name string, kind uint32, call func(dir int) error) error {
	dir, done, err := s.nodes.descriptor(n)
	if err != nil {
		return err
	}
	defer done()
	uid, gid, err := s.creator(r, dir)
	if err != nil {
		return err
	}
	if err := call(dir); err != nil {
		return err
	}
	fd, err := openBeneath(dir, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	st, err := statBeneath(fd, "")
	if err != nil {
		return err
	}
	if uint32(st.Mode)&unix.S_IFMT != kind || st.Uid != 0 {
		return syscall.EEXIST
	}
	given := st
	if uid != 0 || gid > 0 {
		if err = unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err == nil {
			given, err = statBeneath(fd, "")
		}
	}
	if err == nil {
		err = s.tell(r, n, name, given)
	}
	if err != nil {
		takeBack(dir, name, st)
	}
	return err
}

// takeBack removes a new file that still has its name, of whose making the caller
// is told that it failed.
func takeBack(dir int, name string, st *unix.Statx_t) {
	now, err := statBeneath(dir, name)
	if err != nil || identify(now) != identify(st) {
		return
	}
	flags := 0
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	unix.Unlinkat(dir, name, flags) //nolint:errcheck // the caller hears of the first error
}

func (s *server) mkdir(r *request, n *node) error {
	mode := r.u32()
	r.u32() // umask: the guest has applied it
	name, err := r.name()
	if err != nil {
		return err
	}
	return s.make(r, n, name, unix.S_IFDIR, func(dir int) error { return unix.Mkdirat(dir, name, mode&0o1777) })
}

// mknod makes regular files, FIFOs and sockets. Device nodes are refused: the
// volume is mounted nodev everywhere, and they would be the host's devices.
func (s *server) mknod(r *request, n *node) error {
	mode := r.u32()
	r.take(12) // device, umask, padding
	name, err := r.name()
	if err != nil {
		return err
	}
	kind := mode & unix.S_IFMT
	switch kind {
	case 0:
		kind = unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return syscall.EPERM
	}
	return s.make(r, n, name, kind, func(dir int) error { return unix.Mknodat(dir, name, kind|mode&0o777, 0) })
}

func (s *server) symlink(r *request, n *node) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	target := r.text()
	switch {
	case r.short || target == "":
		return syscall.EINVAL
	case len(target) >= unix.PathMax:
		return syscall.ENAMETOOLONG
	}
	return s.make(r, n, name, unix.S_IFLNK, func(dir int) error { return unix.Symlinkat(target, dir, name) })
}

func (s *server) readlink(r *request, n *node) error {
	if n.kind != unix.S_IFLNK {
		return syscall.EINVAL
	}
	fd, done, err := s.reference(n)
	if err != nil {
		return err
	}
	defer done()
	c, err := unix.Readlinkat(fd, "", r.room(unix.PathMax))
	if err == nil {
		r.extend(c)
	}
	return err
}

func (s *server) unlink(r *request, n *node) error { return s.remove(r, n, 0) }
func (s *server) rmdir(r *request, n *node) error  { return s.remove(r, n, unix.AT_REMOVEDIR) }

func (s *server) remove(r *request, n *node, flags int) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	dir, done, err := s.nodes.descriptor(n)
	if err != nil {
		return err
	}
	defer done()
	return unix.Unlinkat(dir, name, flags)
}

func (s *server) rename(r *request, n *node) error { return s.renameTo(r, n, r.u64(), 0) }

func (s *server) rename2(r *request, n *node) error {
	to, flags := r.u64(), r.u32()
	r.u32()
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return syscall.EINVAL
	}
	return s.renameTo(r, n, to, flags)
}

func (s *server) renameTo(r *request, from *node, toID uint64, flags uint32) error {
	oldName, err := r.name()
	if err != nil {
		return err
	}
	newName, err := r.name()
	if err != nil {
		return err
	}
	to := s.nodes.get(toID)
	if to == nil {
		return syscall.ESTALE
	}
	defer s.nodes.put(to)
	oldDir, done, err := s.nodes.descriptor(from)
	if err != nil {
		return err
	}
	defer done()
	newDir, done, err := s.nodes.descriptor(to)
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Renameat2(oldDir, oldName, newDir, newName, uint(flags)); err != nil {
		return err
	}
	if st, err := statBeneath(newDir, newName); err == nil {
		s.nodes.moved(st, to, newName)
	}
	if flags&unix.RENAME_EXCHANGE != 0 {
		if st, err := statBeneath(oldDir, oldName); err == nil {
			s.nodes.moved(st, from, oldName)
		}
	}
	return nil
}

// link makes another name of a file. linkat(2) from a descriptor needs
// CAP_DAC_READ_SEARCH of the initial user namespace, so it goes by name, and is
// taken back if that was another file's by then.
func (s *server) link(r *request, n *node) error {
	old := s.nodes.get(r.u64())
	if old == nil {
		return syscall.ESTALE
	}
	defer s.nodes.put(old)
	name, err := r.name()
	if err != nil {
		return err
	}
	if old.dir() {
		return syscall.EPERM
	}
	oldDir, oldName, done, err := s.place(old)
	if err != nil {
		return err
	}
	defer done()
	dir, done, err := s.nodes.descriptor(n)
	if err != nil {
		return err
	}
	defer done()
	before, err := statBeneath(oldDir, oldName)
	if err != nil {
		return stale(err)
	}
	if identify(before) != old.is {
		return syscall.ESTALE
	}
	if err := unix.Linkat(oldDir, oldName, dir, name, 0); err != nil {
		return err
	}
	st, err := statBeneath(dir, name)
	if err != nil {
		return err
	}
	if identify(st) != old.is {
		return errors.Join(syscall.ESTALE, unix.Unlinkat(dir, name, 0))
	}
	return s.tell(r, n, name, st)
}
