package unpack

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// GNU tar and star write access control lists as text, in records of their own.
var aclRecords = map[string]string{
	"SCHILY.acl.access":  "system.posix_acl_access",
	"SCHILY.acl.default": "system.posix_acl_default",
}

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// parseACL turns "user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::r--"
// into the bytes of the kernel's attribute (linux/posix_acl_xattr.h). Users
// and groups must be numbers, in the second field or, as star writes them, in
// a fourth: names mean nothing on this host. Dropping a list instead would
// widen access, because the mode's group bits are then the list's mask.
func parseACL(text string) ([]byte, error) {
	var entries []aclEntry
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if line == "" {
			continue
		}
		e, err := parseACLEntry(strings.Split(strings.TrimSpace(line), ":"))
		if err != nil {
			return nil, fmt.Errorf("%w: access control list entry %s: %s", ErrHostile, quote(line), err)
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b aclEntry) int {
		if a.tag != b.tag {
			return int(a.tag) - int(b.tag)
		}
		return int(int64(a.id) - int64(b.id))
	})
	out := binary.LittleEndian.AppendUint32(nil, 2) // POSIX_ACL_XATTR_VERSION
	for _, e := range entries {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return out, nil
}

func parseACLEntry(f []string) (e aclEntry, err error) {
	if len(f) < 3 || len(f) > 4 {
		return e, fmt.Errorf("want TAG:ID:PERMISSIONS")
	}
	e.id = 1<<32 - 1 // ACL_UNDEFINED_ID
	named := f[1] != ""
	switch f[0] {
	case "user", "u":
		e.tag = 0x01
	case "group", "g":
		e.tag = 0x04
	case "mask", "m":
		e.tag = 0x10
	case "other", "o":
		e.tag = 0x20
	default:
		return e, fmt.Errorf("unknown tag")
	}
	if named {
		if e.tag > 0x04 {
			return e, fmt.Errorf("mask and other have no ID")
		}
		e.tag <<= 1 // ACL_USER, ACL_GROUP
		id, err := strconv.ParseUint(f[len(f)-1], 10, 32)
		if len(f) == 3 {
			id, err = strconv.ParseUint(f[1], 10, 32)
		}
		if err != nil {
			return e, fmt.Errorf("the user or group is not a number")
		}
		e.id = uint32(id)
	}
	for _, c := range f[2] {
		switch c {
		case 'r':
			e.perm |= 4
		case 'w':
			e.perm |= 2
		case 'x':
			e.perm |= 1
		case '-':
		default:
			return e, fmt.Errorf("unknown permission")
		}
	}
	return e, nil
}
