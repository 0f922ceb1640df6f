package filetree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/posixacl"
)

// IDs is a workload's range of host IDs: Base inside is 0. The zero value
// translates nothing.
type IDs struct{ Base, Count uint32 }

// nobody is what the kernel shows for an owner that has no ID inside.
const nobody = 65534

// inside returns a host ID as the workload sees it.
func (i IDs) inside(id uint32) uint32 {
	switch {
	case i.Count == 0:
		return id
	case id < i.Base || id-i.Base >= i.Count:
		return nobody
	}
	return id - i.Base
}

// outside returns the host's ID of one of the workload's.
func (i IDs) outside(id int64) (uint32, error) {
	switch {
	case id < 0 || id >= 1<<32-1: // (uid_t)-1 means "unchanged" to chown(2)
		return 0, fmt.Errorf("%w: no such owner %d", ErrMalformed, id)
	case i.Count == 0:
		return uint32(id), nil
	case id >= int64(i.Count):
		return 0, fmt.Errorf("owner %d is outside of the workload's %d IDs", id, i.Count)
	}
	return i.Base + uint32(id), nil
}

// The attributes that hold IDs.
const (
	capability = "security.capability"
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// vfs_cap_data of linux/capability.h: the revision is in the highest byte.
const (
	capRevision  = 0xff000000
	capRevision2 = 0x02000000
	capRevision3 = 0x03000000
	capSize2     = 20
	capSize3     = 24
)

var errAttribute = errors.New("malformed attribute")

// capabilityInside turns file capabilities of revision 3, which name the user
// namespace that they hold in by its root's host ID, into revision 2, which is
// what the workload sees and every archive has.
func (i IDs) capabilityInside(v []byte) ([]byte, bool) {
	if len(v) != capSize3 || binary.LittleEndian.Uint32(v)&capRevision != capRevision3 {
		return v, len(v) == capSize2 && i.Count == 0
	}
	if i.Count != 0 && binary.LittleEndian.Uint32(v[capSize2:]) != i.Base {
		return nil, false // of another namespace's root: means nothing in this one
	}
	out := append([]byte(nil), v[:capSize2]...)
	binary.LittleEndian.PutUint32(out, binary.LittleEndian.Uint32(v)&^uint32(capRevision)|capRevision2)
	return out, true
}

// capabilityOutside is the reverse. Revision 2 on disk would hold on the host,
// for whoever gets to execute the file there, and not in the workload.
func (i IDs) capabilityOutside(v []byte) ([]byte, error) {
	if len(v) != capSize2 || binary.LittleEndian.Uint32(v)&capRevision != capRevision2 {
		return nil, fmt.Errorf("%w %s of %d bytes", errAttribute, capability, len(v))
	}
	if i.Count == 0 {
		return v, nil
	}
	out := append(append([]byte(nil), v...), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(out, binary.LittleEndian.Uint32(v)&^uint32(capRevision)|capRevision3)
	binary.LittleEndian.PutUint32(out[capSize2:], i.Base)
	return out, nil
}

// acl returns an access control list with other IDs.
func acl(v []byte, translate func(uint32) (uint32, error)) ([]byte, error) {
	out, err := posixacl.Translate(bytes.Clone(v), func(id uint32) (uint32, bool, error) {
		to, err := translate(id)
		return to, true, err
	})
	if errors.Is(err, posixacl.ErrMalformed) {
		return nil, fmt.Errorf("%w: access control list of %d bytes", errAttribute, len(v))
	}
	return out, err
}
