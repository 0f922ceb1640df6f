package serve

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

// passed are the flags of open(2) that the host's file gets too. What a write
// to it promises (O_SYNC, O_DSYNC) is kept there.
const passed = unix.O_ACCMODE | unix.O_SYNC | unix.O_DSYNC

func (s *server) open(r *request, n *node) error {
	flags := r.u32()
	r.u32()
	switch {
	case r.short:
		return syscall.EINVAL
	case n.dir():
		return syscall.EISDIR
	case n.kind != unix.S_IFREG:
		return syscall.EPERM // the guest opens FIFOs, sockets and devices by itself
	}
	access := uint64(flags & unix.O_ACCMODE)
	if access == unix.O_ACCMODE {
		return syscall.EINVAL
	}
	if s.ReadOnly && access != unix.O_RDONLY {
		return syscall.EROFS
	}
	fd, _, err := s.openNode(n, uint64(flags&passed))
	if errors.Is(err, syscall.ESTALE) {
		fd, access, err = s.openAgain(n, access)
	}
	if err != nil {
		return err
	}
	return s.putHandle(r, n, fd, access)
}

// openAgain opens a file that has lost its name, through a descriptor of it.
// Offsets are given with each read and write, so it may share the original's.
func (s *server) openAgain(n *node, access uint64) (int, uint64, error) {
	h := s.anyHandle(n, access != unix.O_RDONLY)
	if h == nil {
		return -1, 0, syscall.ESTALE
	}
	defer s.done(h)
	if access != unix.O_WRONLY && !h.readable() {
		return -1, 0, syscall.ESTALE
	}
	fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
	return fd, h.access, err
}

func (s *server) putHandle(r *request, n *node, fd int, access uint64) error {
	h, err := s.addHandle(n, fd, access, nil)
	if err != nil {
		return err
	}
	r.put64(h.id)
	r.put32(0, 0) // no FOPEN_KEEP_CACHE: what the host wrote meanwhile is read
	return nil
}

// create opens a file that it makes unless it exists. One that it has made and
// cannot hand over is gone again.
func (s *server) create(r *request, n *node) error {
	flags, mode := r.u32(), r.u32()
	r.u64() // umask, which the guest has applied; more flags
	name, err := r.name()
	if err != nil {
		return err
	}
	access := uint64(flags & unix.O_ACCMODE)
	if access == unix.O_ACCMODE {
		return syscall.EINVAL
	}
	dir, done, err := s.nodes.descriptor(n)
	if err != nil {
		return err
	}
	defer done()
	uid, gid, err := s.creator(r, dir)
	if err != nil {
		return err
	}
	fd, err := openBeneath(dir, name, uint64(flags&passed)|unix.O_CREAT|unix.O_EXCL, mode&0o777)
	made := err == nil
	if errors.Is(err, unix.EEXIST) && flags&unix.O_EXCL == 0 {
		fd, err = s.openExisting(dir, name, uint64(flags&passed))
	}
	if err != nil {
		return err
	}
	switch {
	case made:
		err = give(fd, uid, gid, mode)
	case flags&unix.O_TRUNC != 0 && access != unix.O_RDONLY:
		err = retry(func() error { return unix.Ftruncate(fd, 0) }) // the guest believes that the file is new
	}
	st, statErr := statBeneath(fd, "")
	if err = errors.Join(err, statErr); err == nil {
		err = s.putCreated(r, n, name, st, fd, access)
	} else {
		unix.Close(fd)
	}
	if err != nil && made {
		takeBack(dir, name, st)
	}
	return err
}

// putCreated tells the guest of a file and of the handle that it gets for fd, which
// it owns from then on.
func (s *server) putCreated(r *request, n *node, name string, st *unix.Statx_t, fd int, access uint64) error {
	child, err := s.nodes.intern(n, name, st, true)
	if err != nil {
		unix.Close(fd)
		return err
	}
	defer s.nodes.put(child)
	s.putEntry(r, child.id, st)
	if err := s.putHandle(r, child, fd, access); err != nil {
		s.nodes.forget(child.id, 1)
		return err
	}
	return nil
}

// give hands a new file to its owner. chown(2) takes the setuid and setgid bits
// away, so they come after it.
func give(fd, uid, gid int, mode uint32) error {
	if uid != 0 || gid > 0 {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return err
		}
	}
	if mode&0o7000 != 0 {
		return unix.Fchmod(fd, mode&0o7777)
	}
	return nil
}

// openExisting opens a file that the guest did not know of. Looking first keeps
// it from opening a device or a FIFO; somebody who puts one there in between
// gains nothing, the mount is nodev and the open does not wait.
func (s *server) openExisting(dir int, name string, flags uint64) (int, error) {
	st, err := statBeneath(dir, name)
	if err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, syscall.EEXIST
	}
	return openFile(dir, name, flags, identify(st))
}

func (s *server) read(r *request, n *node) error {
	id, offset, size := r.u64(), r.u64(), r.u32()
	h, err := s.handle(n, id)
	if err != nil {
		return err
	}
	defer s.done(h)
	if r.short || size > fuse.MaxTransfer || h.stream != nil {
		return syscall.EINVAL
	}
	to := r.room(int(size))
	total := 0
	for total < len(to) {
		c, err := unix.Pread(h.fd, to[total:], int64(offset)+int64(total))
		if err == unix.EINTR {
			continue
		}
		if err != nil && total == 0 {
			return err
		}
		if err != nil || c == 0 {
			break
		}
		total += c
	}
	r.extend(total)
	return nil
}

const writeFromCache = 1 << 0 // FUSE_WRITE_CACHE: pages of a mapping, at their own place

func (s *server) write(r *request, n *node) error {
	id, offset, size, how := r.u64(), r.u64(), r.u32(), r.u32()
	r.u64() // lock owner
	flags := r.u32()
	r.u32()
	h, err := s.handle(n, id)
	if err != nil {
		return err
	}
	defer s.done(h)
	if r.short || uint64(size) > uint64(len(r.b)) || h.stream != nil {
		return syscall.EINVAL
	}
	data := r.b[:size]
	// Where the end of the file is, the host knows best: others may append too.
	rwf := 0
	if flags&unix.O_APPEND != 0 && how&writeFromCache == 0 {
		rwf = unix.RWF_APPEND
	}
	total := 0
	for total < len(data) {
		c, err := unix.Pwritev2(h.fd, [][]byte{data[total:]}, int64(offset)+int64(total), rwf)
		if err == unix.EINTR {
			continue
		}
		if err != nil && total == 0 {
			return err
		}
		if err != nil || c == 0 {
			break
		}
		total += c
	}
	r.put32(uint32(total), 0)
	return nil
}

func (s *server) fsync(r *request, n *node) error {
	id, flags := r.u64(), r.u32()
	h, err := s.handle(n, id)
	if err != nil {
		return err
	}
	defer s.done(h)
	if flags&1 != 0 { // FUSE_FSYNC_FDATASYNC
		return retry(func() error { return unix.Fdatasync(h.fd) })
	}
	return retry(func() error { return unix.Fsync(h.fd) })
}

const allocations = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE

func (s *server) fallocate(r *request, n *node) error {
	id, offset, length, mode := r.u64(), r.u64(), r.u64(), r.u32()
	h, err := s.handle(n, id)
	if err != nil {
		return err
	}
	defer s.done(h)
	if r.short || mode&^allocations != 0 {
		return syscall.EOPNOTSUPP
	}
	return retry(func() error { return unix.Fallocate(h.fd, mode, int64(offset), int64(length)) })
}

// lseek finds data and holes; all else the guest does by itself.
func (s *server) lseek(r *request, n *node) error {
	id, offset, whence := r.u64(), r.u64(), r.u32()
	h, err := s.handle(n, id)
	if err != nil {
		return err
	}
	defer s.done(h)
	if r.short || h.stream != nil || whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return syscall.EINVAL
	}
	at, err := unix.Seek(h.fd, int64(offset), int(whence))
	if err == nil {
		r.put64(uint64(at))
	}
	return err
}

// mostCopied bounds what one request copies, so that it takes a bounded time;
// the guest asks again for the rest.
const mostCopied = 16 << 20

func (s *server) copyFileRange(r *request, n *node) error {
	id, offset := r.u64(), int64(r.u64())
	toNode, toID, toOffset := r.u64(), r.u64(), int64(r.u64())
	length, flags := r.u64(), r.u64()
	if r.short || flags != 0 {
		return syscall.EINVAL
	}
	to := s.nodes.get(toNode)
	if to == nil {
		return syscall.ESTALE
	}
	defer s.nodes.put(to)
	in, err := s.handle(n, id)
	if err != nil {
		return err
	}
	defer s.done(in)
	out, err := s.handle(to, toID)
	if err != nil {
		return err
	}
	defer s.done(out)
	c := 0
	err = retry(func() (err error) {
		c, err = unix.CopyFileRange(in.fd, &offset, out.fd, &toOffset, int(min(length, mostCopied)), 0)
		return err
	})
	if err == nil {
		r.put32(uint32(c), 0)
	}
	return err
}
