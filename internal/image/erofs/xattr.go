package erofs

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// prefixes are the beginnings of attribute names that the format numbers.
var prefixes = []struct {
	text  string
	index uint8
}{
	{"user.", 1},
	{"system.posix_acl_access", 2},
	{"system.posix_acl_default", 3},
	{"trusted.", 4},
	{"security.", 6},
}

const (
	xattrHeader = 12
	xattrEntry  = 4
)

// keepXattr tells which attributes belong to the image: not overlayfs' own, and
// not the labels that the host's security modules gave to its files.
func keepXattr(name string) bool {
	if strings.HasPrefix(name, "security.") {
		return name == "security.capability"
	}
	return !strings.HasPrefix(name, "trusted.overlay.")
}

// xattrs returns a file's extended attributes as they stand behind its inode,
// nil when it has none.
func xattrs(dir int, name string) ([]byte, error) {
	names, err := at.Llistxattr(dir, name)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var b []byte
	for _, n := range names {
		if !keepXattr(n) {
			continue
		}
		value, err := at.Lgetxattr(dir, name, n)
		if err != nil {
			return nil, err
		}
		if b == nil {
			b = make([]byte, xattrHeader)
		}
		if b, err = appendXattr(b, n, value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(b) > xattrHeader+(math.MaxUint16-1)*xattrEntry {
		return nil, fmt.Errorf("%s: more extended attributes than an EROFS inode holds", name)
	}
	return b, nil
}

func appendXattr(b []byte, name string, value []byte) ([]byte, error) {
	for _, p := range prefixes {
		rest, ok := strings.CutPrefix(name, p.text)
		if !ok {
			continue
		}
		if len(value) > math.MaxUint16 || len(rest) > math.MaxUint8 {
			return nil, fmt.Errorf("extended attribute %q is too large for EROFS: %d bytes", name, len(value))
		}
		b = append(b, byte(len(rest)), p.index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(append(b, rest...), value...)
		return append(b, make([]byte, -len(b)&(xattrEntry-1))...), nil
	}
	return nil, fmt.Errorf("extended attribute %q cannot be kept in EROFS", name)
}

// xattrCount is what an inode says about n bytes of attributes.
func xattrCount(n int) uint16 {
	if n == 0 {
		return 0
	}
	return uint16((n-xattrHeader)/xattrEntry + 1)
}
