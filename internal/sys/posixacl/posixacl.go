// Package posixacl reads access control lists as extended attributes hold them:
// system.posix_acl_access and system.posix_acl_default, acl(5) and
// linux/posix_acl_xattr.h.
package posixacl

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed is the error for a value that the kernel would not take.
var ErrMalformed = errors.New("malformed access control list")

// A version, then entries of tag, permissions and ID, of which only those of named
// users and groups count.
const (
	version = 2
	header  = 4
	entry   = 8
	user    = 0x02
	group   = 0x08
)

// Translate replaces the IDs of named users and groups in list, in place, and returns
// what is left of it: entries for which id does not say keep are taken out. The
// error is ErrMalformed, or id's; then list is in between.
func Translate(list []byte, id func(uint32) (to uint32, keep bool, err error)) ([]byte, error) {
	le := binary.LittleEndian
	if len(list) < header || (len(list)-header)%entry != 0 || le.Uint32(list) != version {
		return nil, ErrMalformed
	}
	out := list[:header]
	for rest := list[header:]; len(rest) > 0; rest = rest[entry:] {
		e := rest[:entry]
		if tag := le.Uint16(e); tag == user || tag == group {
			to, keep, err := id(le.Uint32(e[4:]))
			if err != nil {
				return nil, err
			}
			if !keep {
				continue
			}
			le.PutUint32(e[4:], to)
		}
		out = append(out, e...)
	}
	return out, nil
}
