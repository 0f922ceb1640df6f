package serve

import (
	"bytes"
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/posixacl"
)

// Only user.* attributes pass. The others mean something to the host's kernel:
// security.capability would give the host's programs capabilities, and trusted.* is
// the host administrator's. A guest that asks for them is told that there are none.
//
// Access control lists are shown, with IDs of the guest, whose kernel keeps to them:
// with a list the group's bits of the mode are its mask, and say more than the group
// may, and others' bits are not for users that it names. They cannot be set.

const mostXattr = 64 << 10 // XATTR_SIZE_MAX and XATTR_LIST_MAX

func (s *server) attribute(r *request, n *node, reading bool) (name string, err error) {
	name = r.text()
	switch {
	case r.short || name == "":
		return "", syscall.EINVAL
	case len(name) > 255: // XATTR_NAME_MAX
		return "", syscall.ERANGE
	case strings.HasPrefix(name, "user.") && (n.kind == unix.S_IFREG || n.dir()):
		return name, nil
	case reading && isACL(name):
		// Those of special files cannot be read without opening them.
		if n.kind != unix.S_IFREG && !n.dir() {
			return "", syscall.ENODATA
		}
		return name, nil
	case reading && (strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "user.")):
		return "", syscall.ENODATA
	case strings.HasPrefix(name, "user."):
		return "", syscall.EPERM // xattr(7): not of links and special files
	}
	return "", syscall.EOPNOTSUPP
}

func (s *server) setxattr(r *request, n *node) error {
	size, flags := r.u32(), r.u32()
	name, err := s.attribute(r, n, false)
	if err != nil {
		return err
	}
	if uint64(size) > uint64(len(r.b)) || size > mostXattr {
		return syscall.E2BIG
	}
	fd, done, err := s.opened(n, false)
	if err != nil {
		return err
	}
	defer done()
	return unix.Fsetxattr(fd, name, r.b[:size], int(flags&(unix.XATTR_CREATE|unix.XATTR_REPLACE)))
}

func (s *server) removexattr(r *request, n *node) error {
	name, err := s.attribute(r, n, false)
	if err != nil {
		return err
	}
	fd, done, err := s.opened(n, false)
	if err != nil {
		return err
	}
	defer done()
	return unix.Fremovexattr(fd, name)
}

func (s *server) getxattr(r *request, n *node) error {
	size := r.u32()
	r.u32()
	name, err := s.attribute(r, n, true)
	if err != nil {
		return err
	}
	fd, done, err := s.opened(n, false)
	if isACL(name) && errors.Is(err, syscall.EACCES) {
		return syscall.ENODATA // whose owner has no ID here: the host keeps to it
	}
	if err != nil {
		return err
	}
	defer done()
	value := r.room(mostXattr)
	c, err := unix.Fgetxattr(fd, name, value)
	if isACL(name) && errors.Is(err, syscall.EOPNOTSUPP) {
		return syscall.ENODATA // any other error would keep everybody out
	}
	if err != nil {
		return err
	}
	value = value[:c]
	if isACL(name) {
		// Entries of those who have no ID in the guest are left out: nobody there is meant.
		value, err = posixacl.Translate(value, func(id uint32) (uint32, bool, error) { return s.toGuest(id), id < s.IDCount, nil })
		if err != nil {
			return syscall.EIO
		}
	}
	return r.putSized(size, value)
}

func isACL(name string) bool {
	return name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

func (s *server) listxattr(r *request, n *node) error {
	size := r.u32()
	r.u32()
	if r.short {
		return syscall.EINVAL
	}
	if n.kind != unix.S_IFREG && !n.dir() {
		return r.putSized(size, nil)
	}
	fd, done, err := s.opened(n, false)
	if err != nil {
		return err
	}
	defer done()
	all := make([]byte, mostXattr)
	c, err := unix.Flistxattr(fd, all)
	if err != nil {
		return err
	}
	var shown []byte
	for name := range bytes.SplitAfterSeq(all[:c], []byte{0}) {
		if bytes.HasPrefix(name, []byte("user.")) {
			shown = append(shown, name...)
		}
	}
	return r.putSized(size, shown)
}

// putSized answers a request that gives the size of its buffer, 0 to ask how
// much there is.
func (r *request) putSized(size uint32, value []byte) error {
	switch {
	case size == 0:
		r.put32(uint32(len(value)), 0)
	case len(value) > int(size):
		return syscall.ERANGE
	default:
		r.out = append(r.out, value...) // may be in place already
	}
	return nil
}
