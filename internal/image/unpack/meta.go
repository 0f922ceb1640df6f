package unpack

import (
	"archive/tar"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// meta is what an entry says of a file beside its content.
type meta struct {
	mode         uint32 // permission bits with setuid, setgid, sticky
	uid, gid     int
	mtime, atime time.Time
	xattrs       []xattr
	isLink       bool
}

type xattr struct {
	name  string
	value []byte
}

const xattrPrefix = "SCHILY.xattr."

func (u *unpacker) meta(hdr *tar.Header) (*meta, error) {
	// (uid_t)-1 means "unchanged" to chown(2).
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= math.MaxUint32 || int64(hdr.Gid) >= math.MaxUint32 {
		return nil, fmt.Errorf("%w: no such owner %d:%d", ErrHostile, hdr.Uid, hdr.Gid)
	}
	m := &meta{mode: uint32(hdr.Mode) & 0o7777, uid: hdr.Uid, gid: hdr.Gid, mtime: hdr.ModTime, atime: hdr.AccessTime}
	u.maxID = max(u.maxID, uint32(hdr.Uid), uint32(hdr.Gid))
	if m.mtime.IsZero() {
		m.mtime = time.Unix(0, 0)
	}
	if m.atime.IsZero() {
		m.atime = m.mtime
	}
	if len(hdr.PAXRecords) == 0 {
		return m, nil
	}
	size := 0
	for _, key := range sortedKeys(hdr.PAXRecords) {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok {
			continue
		}
		if size += len(name) + len(hdr.PAXRecords[key]); size > u.limits.XattrBytes || len(name) > 255 {
			return nil, fmt.Errorf("%w: extended attributes of more than %s", ErrLimit, bytesText(int64(u.limits.XattrBytes)))
		}
		if filetree.KeepXattr(name) {
			// The name is cloned: it is a part of the header, of up to 1 MiB.
			m.xattrs = append(m.xattrs, xattr{strings.Clone(name), []byte(hdr.PAXRecords[key])})
		}
	}
	return m, m.textACLs(hdr, u.limits.XattrBytes)
}

// size is about what the extended attributes take in memory, and on a disk.
func (m *meta) size() int64 {
	const overhead = 64 // of an attribute
	n := 0
	for _, x := range m.xattrs {
		n += len(x.name) + len(x.value) + overhead
	}
	return int64(n)
}

// textACLs adds lists that are written as text.
func (m *meta) textACLs(hdr *tar.Header, limit int) error {
	for _, record := range []string{"SCHILY.acl.access", "SCHILY.acl.default"} {
		text := hdr.PAXRecords[record]
		if text == "" || hdr.Typeflag == tar.TypeSymlink {
			continue
		}
		if len(text) > limit {
			return fmt.Errorf("%w: an access control list of more than %s", ErrLimit, bytesText(int64(limit)))
		}
		value, err := parseACL(text)
		if err != nil {
			return err
		}
		m.xattrs = append(m.xattrs, xattr{aclRecords[record], value})
	}
	return nil
}

// applyOpen sets all but the times of an open file that was made with the
// permissions created. Owners first: chown clears setuid bits and capabilities.
func (m *meta) applyOpen(fd int, plainOwner bool, created uint32) error {
	if !plainOwner || m.uid != 0 || m.gid != 0 {
		if err := at.Fchown(fd, m.uid, m.gid); err != nil {
			return err
		}
	}
	if m.mode != created {
		if err := at.Fchmod(fd, m.mode); err != nil {
			return err
		}
	}
	for _, x := range m.xattrs {
		if err := at.Fsetxattr(fd, x.name, x.value); err != nil {
			return err
		}
	}
	return nil
}

// applyName sets everything of a file that must not be opened.
func (m *meta) applyName(dir int, name string, plainOwner bool) error {
	if !plainOwner || m.uid != 0 || m.gid != 0 {
		if err := at.Chown(dir, name, m.uid, m.gid); err != nil {
			return err
		}
	}
	if !m.isLink {
		if err := at.Chmod(dir, name, m.mode); err != nil {
			return err
		}
	}
	for _, x := range m.xattrs {
		// The kernel has no user attributes on links and special files (xattr(7)).
		if strings.HasPrefix(x.name, "user.") {
			continue
		}
		if err := at.Lsetxattr(dir, name, x.name, x.value); err != nil {
			return err
		}
	}
	return at.Chtimes(dir, name, m.atime, m.mtime)
}
