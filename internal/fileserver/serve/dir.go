package serve

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

// stream reads the entries of an open directory. Positions are the host file
// system's own cookies (d_off), valid for one descriptor.
type stream struct {
	mu   sync.Mutex
	fd   int
	buf  []byte // entries read and not yet told
	next int64  // position of the first of them
	all  [8 << 10]byte
}

// dirent is one struct linux_dirent64.
type dirent struct {
	inode uint64
	after int64 // position of the next one
	kind  uint8
	name  string
}

// seek goes to a position that the guest has been told, or to any other: the
// host's file system checks it.
func (d *stream) seek(at int64) error {
	if at == d.next {
		return nil
	}
	d.buf = nil
	if _, err := unix.Seek(d.fd, at, 0); err != nil {
		return err
	}
	d.next = at
	return nil
}

// peek returns the entry at the stream's position, false at the end.
func (d *stream) peek() (e dirent, size int, ok bool, err error) {
	if len(d.buf) == 0 {
		c, err := unix.Getdents(d.fd, d.all[:])
		if err != nil || c == 0 {
			return e, 0, false, err
		}
		d.buf = d.all[:c]
	}
	// ino u64, off i64, reclen u16, type u8, name
	const fixed = 19
	le := binary.LittleEndian
	if len(d.buf) < fixed {
		return e, 0, false, syscall.EIO
	}
	size = int(le.Uint16(d.buf[16:]))
	if size < fixed || size > len(d.buf) {
		return e, 0, false, syscall.EIO
	}
	name, _, _ := bytes.Cut(d.buf[fixed:size], []byte{0})
	return dirent{le.Uint64(d.buf), int64(le.Uint64(d.buf[8:])), d.buf[18], string(name)}, size, true, nil
}

func (d *stream) advance(e dirent, size int) {
	d.buf = d.buf[size:]
	d.next = e.after
}

func (s *server) opendir(r *request, n *node) error {
	if !n.dir() {
		return syscall.ENOTDIR
	}
	fd, _, err := s.openNode(n, unix.O_RDONLY)
	if err != nil {
		return err
	}
	h, err := s.addHandle(n, fd, unix.O_RDONLY, &stream{fd: fd})
	if err != nil {
		return err
	}
	r.put64(h.id)
	r.put32(0, 0)
	return nil
}

func (s *server) readdir(r *request, n *node) error     { return s.list(r, n, false) }
func (s *server) readdirplus(r *request, n *node) error { return s.list(r, n, true) }

// entryOutSize is that of struct fuse_entry_out.
const entryOutSize = 128

func (s *server) list(r *request, n *node, plus bool) error {
	id, offset, size := r.u64(), int64(r.u64()), r.u32()
	h, err := s.handle(n, id)
	if err != nil {
		return err
	}
	defer s.done(h)
	d := h.stream
	if r.short || d == nil || offset < 0 {
		return syscall.EINVAL
	}
	limit := len(r.out) + int(min(size, fuse.MaxTransfer))
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.seek(offset); err != nil {
		return err
	}
	for {
		e, length, ok, err := d.peek()
		if err != nil && len(r.out) == fuse.OutHeaderSize {
			return err
		}
		if err != nil || !ok {
			return nil
		}
		need := (24 + len(e.name) + 7) &^ 7
		if plus {
			need += entryOutSize
		}
		if len(r.out)+need > limit {
			return nil
		}
		if err := s.putDirent(r, n, h.fd, e, plus); err != nil {
			return err
		}
		d.advance(e, length)
	}
}

// putDirent appends one entry. With plus the guest learns of the file as well,
// as if it had looked it up; a file that is gone meanwhile, or that cannot be
// looked at, is listed without, and the guest will look for itself.
func (s *server) putDirent(r *request, n *node, dir int, e dirent, plus bool) error {
	if plus {
		var st *unix.Statx_t
		var id uint64
		if e.name != "." && e.name != ".." {
			found, err := statBeneath(dir, e.name)
			if err == nil {
				child, err := s.nodes.intern(n, e.name, found, true)
				if err != nil && !errors.Is(err, syscall.ENFILE) {
					return err
				}
				if err == nil {
					st, id = found, child.id
					s.nodes.put(child)
				}
			}
		}
		if st == nil {
			st = &unix.Statx_t{Ino: e.inode}
		}
		s.putEntry(r, id, st)
	}
	r.put64(e.inode, uint64(e.after))
	r.put32(uint32(len(e.name)), uint32(e.kind))
	r.out = append(r.out, e.name...)
	for len(r.out)%8 != 0 {
		r.out = append(r.out, 0)
	}
	return nil
}
