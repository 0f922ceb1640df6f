package filetree

import (
	"archive/tar"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// xattrRecord begins the PAX record of an extended attribute.
const xattrRecord = "SCHILY.xattr."

// maxXattrs bounds the attributes of one file, names included, in bytes.
const maxXattrs = 64 << 10

// KeepXattr tells which attributes travel in an archive. Not among them:
// trusted.* and user.overlay.*, with which overlayfs could be redirected to
// files that the workload must not see; security.* but for file capabilities,
// which belong to the host's security modules; what no file system keeps; and
// names with "=", which ends the name of a PAX record (pax(1)).
func KeepXattr(name string) bool {
	switch name {
	case capability, aclAccess, aclDefault:
		return true
	}
	return strings.HasPrefix(name, "user.") && name != "user." &&
		!strings.HasPrefix(name, "user.overlay.") && !strings.ContainsAny(name, "\x00=")
}

// readXattrs adds the attributes of an open file to its header.
func (r *reader) readXattrs(fd int, hdr *tar.Header) error {
	names, err := at.Listxattr(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !KeepXattr(name) && strings.HasPrefix(name, "user.") && strings.Contains(name, "=") {
			r.o.Skipped(fmt.Sprintf("the attribute %q of %s", name, hdr.Name), `an archive cannot hold a "=" in its name`)
		}
	}
	values, err := r.o.IDs.attributesInside(names, func(name string) ([]byte, error) { return at.Getxattr(fd, name) })
	if err != nil {
		return err
	}
	for name, value := range values {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords[xattrRecord+name] = value
	}
	return nil
}

// attributeInside is an attribute's value as the workload would see it, nil for
// one that means nothing there.
func (i IDs) attributeInside(name string, value []byte) ([]byte, error) {
	switch name {
	case capability:
		v, ok := i.capabilityInside(value)
		if !ok {
			return nil, nil
		}
		return v, nil
	case aclAccess, aclDefault:
		return acl(value, func(id uint32) (uint32, error) { return i.inside(id), nil })
	}
	if value == nil {
		value = []byte{}
	}
	return value, nil
}

// attributesInside are those attributes of a file that travel in an archive, by their
// names, as the workload would see them. It is an error if they take more than
// maxXattrs.
func (i IDs) attributesInside(names []string, get func(name string) ([]byte, error)) (map[string]string, error) {
	values := make(map[string]string)
	size := 0
	for _, name := range names {
		if !KeepXattr(name) {
			continue
		}
		value, err := get(name)
		if at.NoXattr(err) {
			continue // removed meanwhile
		}
		if err == nil {
			value, err = i.attributeInside(name, value)
		}
		if err != nil {
			return nil, err
		}
		if value == nil {
			continue
		}
		if size += len(name) + len(value); size > maxXattrs {
			return nil, fmt.Errorf("extended attributes of more than %d bytes", maxXattrs)
		}
		values[name] = string(value)
	}
	return values, nil
}

// attributes is what an entry says of a file beside its content.
type attributes struct {
	hdr      *tar.Header
	uid, gid int // of the host, -1 to leave as it is
	mode     uint32
	xattrs   []xattr
}

type xattr struct {
	name  string
	value []byte
}

func (u *unpacker) attributes(hdr *tar.Header) (*attributes, error) {
	a := &attributes{hdr: hdr, uid: -1, gid: -1, mode: uint32(hdr.Mode) & 0o7777}
	switch {
	case u.o.Owners:
		uid, err := u.o.IDs.outside(int64(hdr.Uid))
		if err != nil {
			return nil, err
		}
		gid, err := u.o.IDs.outside(int64(hdr.Gid))
		if err != nil {
			return nil, err
		}
		a.uid, a.gid = int(uid), int(gid)
	case u.o.IDs.Count > 0:
		a.uid, a.gid = int(u.o.IDs.Base), int(u.o.IDs.Base)
	}
	if u.o.Host && !u.o.Owners {
		// They would act for whoever unpacks.
		a.mode &^= 0o6000
	}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || !KeepXattr(name) {
			continue
		}
		value := []byte(hdr.PAXRecords[key])
		if size += len(name) + len(value); size > maxXattrs || len(name) > 255 {
			return nil, fmt.Errorf("%w: extended attributes of more than %d bytes", ErrMalformed, maxXattrs)
		}
		value, err := u.attributeOutside(name, value)
		if err != nil {
			return nil, err
		}
		if value != nil {
			a.xattrs = append(a.xattrs, xattr{name, value})
		}
	}
	return a, nil
}

func (u *unpacker) attributeOutside(name string, value []byte) ([]byte, error) {
	switch name {
	case capability:
		if u.o.Host {
			return nil, nil
		}
		return u.o.IDs.capabilityOutside(value)
	case aclAccess, aclDefault:
		return acl(value, func(id uint32) (uint32, error) { return u.o.IDs.outside(int64(id)) })
	}
	return value, nil
}

// applyOpen gives an open file its attributes. The owner comes first: chown
// clears setuid bits and capabilities.
func (u *unpacker) applyOpen(fd int, a *attributes) error {
	if a.uid >= 0 {
		if err := at.Fchown(fd, a.uid, a.gid); err != nil {
			return err
		}
	}
	if err := at.Fchmod(fd, a.mode); err != nil {
		return err
	}
	for _, x := range a.xattrs {
		err := at.Fsetxattr(fd, x.name, x.value)
		if at.NoXattr(err) && strings.HasPrefix(x.name, "user.") {
			continue // a file system without them; the others narrow or widen access
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// applyName is applyOpen for what must not be opened.
func (u *unpacker) applyName(dir int, name string, a *attributes) error {
	if a.uid >= 0 {
		if err := at.Chown(dir, name, a.uid, a.gid); err != nil {
			return err
		}
	}
	return at.Chtimes(dir, name, times(a.hdr), times(a.hdr))
}

var errSkipped = errors.New("skipped")
