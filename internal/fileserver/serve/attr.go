package serve

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// overflowID owns what belongs to nobody in the guest (kernel.overflowuid).
const overflowID = 65534

// noID leaves an owner as it is: chown(2).
const noID = -1

// toGuest maps an ID of the host to one of the guest.
func (o Options) toGuest(id uint32) uint32 {
	if id >= o.IDCount {
		return overflowID
	}
	return o.IDBase + id
}

// toHost maps an ID of the guest to one of the host. Others than the
// workload's own own nothing and cannot be given anything.
func (o Options) toHost(id uint32) (int, bool) {
	if id < o.IDBase || id-o.IDBase >= o.IDCount {
		return 0, false
	}
	return int(id - o.IDBase), true
}

// creator are the owner and group that a new file in dir gets, and fails for a
// caller whose IDs the volume cannot hold, as an ID-mapped mount does. The guest's
// own root is no workload's: it is the agent, which makes a mount point in the
// volume, and what it makes is the volume's root's. It could have taken any ID. A
// directory with the setgid bit gives its group (inode(7)); then gid is noID.
func (s *server) creator(r *request, dir int) (uid, gid int, err error) {
	uid, ok := s.toHost(r.UID)
	gid, ok2 := s.toHost(r.GID)
	if !ok && r.UID == 0 && r.GID == 0 {
		uid, gid, ok, ok2 = 0, 0, true, true
	}
	if !ok || !ok2 {
		return 0, 0, syscall.EOVERFLOW
	}
	st, err := statBeneath(dir, "")
	if err == nil && st.Mode&unix.S_ISGID != 0 {
		gid = noID
	}
	return uid, gid, err
}

// stat returns the attributes of a node.
func (s *server) stat(n *node) (*unix.Statx_t, error) {
	s.nodes.mu.Lock()
	open := len(n.opened) > 0
	s.nodes.mu.Unlock()
	if !n.dir() && !open {
		dir, name, done, err := s.place(n)
		if err != nil {
			return nil, err
		}
		defer done()
		st, err := statBeneath(dir, name)
		if err != nil {
			return nil, stale(err)
		}
		if identify(st) != n.is {
			return nil, syscall.ESTALE
		}
		return st, nil
	}
	fd, done, err := s.reference(n)
	if err != nil {
		return nil, err
	}
	defer done()
	return statBeneath(fd, "")
}

// putAttr appends a struct fuse_attr.
func (s *server) putAttr(r *request, st *unix.Statx_t) {
	r.put64(s.inode(st), st.Size, st.Blocks, uint64(st.Atime.Sec), uint64(st.Mtime.Sec), uint64(st.Ctime.Sec))
	r.put32(st.Atime.Nsec, st.Mtime.Nsec, st.Ctime.Nsec, uint32(st.Mode), st.Nlink,
		s.toGuest(st.Uid), s.toGuest(st.Gid), uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor)), st.Blksize, 0)
}

// inode is the number that the guest shows. Files of other file systems that
// are mounted in the volume get other numbers, mostly.
func (s *server) inode(st *unix.Statx_t) uint64 {
	if d := unix.Mkdev(st.Dev_major, st.Dev_minor); d != s.nodes.root.is.device {
		return st.Ino ^ d<<40
	}
	return st.Ino
}

func (s *server) putAttrOut(r *request, st *unix.Statx_t) {
	r.put64(uint64(Timeout.Seconds()))
	r.put32(0, 0)
	s.putAttr(r, st)
}

// putEntry appends a struct fuse_entry_out.
func (s *server) putEntry(r *request, id uint64, st *unix.Statx_t) {
	seconds := uint64(Timeout.Seconds())
	if id == 0 { // no such name, and nothing to remember
		seconds = 0
	}
	r.put64(id, 0, seconds, seconds)
	r.put32(0, 0)
	s.putAttr(r, st)
}

func (s *server) getattr(r *request, n *node) error {
	st, err := s.stat(n)
	if err == nil {
		s.putAttrOut(r, st)
	}
	return err
}

// Bits of fuse_setattr_in.valid.
const (
	setMode = 1 << iota
	setUID
	setGID
	setSize
	setAtime
	setMtime
	setFH
	setAtimeNow
	setMtimeNow
)

// changes is a struct fuse_setattr_in.
type changes struct {
	valid            uint32
	fh, size         uint64
	atime, mtime     uint64
	atimeNs, mtimeNs uint32
	mode, uid, gid   uint32
}

func (r *request) changes() (c changes) {
	c.valid = r.u32()
	r.u32()
	c.fh, c.size = r.u64(), r.u64()
	r.u64() // lock owner
	c.atime, c.mtime = r.u64(), r.u64()
	r.u64() // change time: the file system's own
	c.atimeNs, c.mtimeNs = r.u32(), r.u32()
	r.u32()
	c.mode = r.u32()
	r.u32()
	c.uid, c.gid = r.u32(), r.u32()
	r.u32()
	return c
}

func (s *server) setattr(r *request, n *node) error {
	c := r.changes()
	if r.short {
		return syscall.EINVAL
	}
	if c.valid&(setUID|setGID) != 0 {
		if err := s.chown(n, c); err != nil {
			return err
		}
	}
	if c.valid&setMode != 0 {
		if err := s.chmod(n, c.mode&0o7777); err != nil {
			return err
		}
	}
	if c.valid&setSize != 0 {
		if err := s.truncate(n, c); err != nil {
			return err
		}
	}
	if c.valid&(setAtime|setMtime) != 0 {
		if err := s.setTimes(n, c); err != nil {
			return err
		}
	}
	return s.getattr(r, n)
}

func (s *server) chown(n *node, c changes) error {
	uid, gid := noID, noID
	var ok bool
	if c.valid&setUID != 0 {
		if uid, ok = s.toHost(c.uid); !ok {
			return syscall.EINVAL // as for an ID that the user namespace does not map
		}
	}
	if c.valid&setGID != 0 {
		if gid, ok = s.toHost(c.gid); !ok {
			return syscall.EINVAL
		}
	}
	fd, done, err := s.reference(n)
	if err != nil {
		return err
	}
	defer done()
	return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// chmod needs fchmodat2(2) of Linux 6.6 to change a file that it does not open.
// Without it, regular files, directories and FIFOs are opened, and of sockets
// the name is used: what is there by now may be another file of the volume, but
// no link, which neither the check nor the mount (nosymfollow) lets pass.
func (s *server) chmod(n *node, mode uint32) error {
	if n.kind == unix.S_IFLNK {
		return syscall.EOPNOTSUPP
	}
	if !s.oldChmod {
		fd, done, err := s.reference(n)
		if err != nil {
			return err
		}
		err = unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
		done()
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	if n.kind == unix.S_IFREG || n.dir() {
		fd, done, err := s.opened(n, false)
		if err != nil {
			return err
		}
		defer done()
		return unix.Fchmod(fd, mode)
	}
	dir, name, done, err := s.place(n)
	if err != nil {
		return err
	}
	defer done()
	st, err := statBeneath(dir, name)
	if err != nil {
		return stale(err)
	}
	if identify(st) != n.is {
		return syscall.ESTALE
	}
	return unix.Fchmodat(dir, name, mode, 0)
}

func (s *server) truncate(n *node, c changes) error {
	if n.kind != unix.S_IFREG || int64(c.size) < 0 {
		return syscall.EINVAL
	}
	if c.valid&setFH != 0 {
		h, err := s.handle(n, c.fh)
		if err != nil {
			return err
		}
		defer s.done(h)
		return retry(func() error { return unix.Ftruncate(h.fd, int64(c.size)) })
	}
	fd, done, err := s.opened(n, true)
	if err != nil {
		return err
	}
	defer done()
	return retry(func() error { return unix.Ftruncate(fd, int64(c.size)) })
}

func (s *server) setTimes(n *node, c changes) error {
	one := func(sec uint64, nsec uint32, set, now bool) unix.Timespec {
		switch {
		case !set:
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		case now:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		}
		return unix.Timespec{Sec: int64(sec), Nsec: int64(min(nsec, 999_999_999))}
	}
	ts := []unix.Timespec{
		one(c.atime, c.atimeNs, c.valid&setAtime != 0, c.valid&setAtimeNow != 0),
		one(c.mtime, c.mtimeNs, c.valid&setMtime != 0, c.valid&setMtimeNow != 0),
	}
	fd, done, err := s.reference(n)
	if err != nil {
		return err
	}
	defer done()
	return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH)
}
