package unpack

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// Errors that a hostile or damaged layer gives. They are wrapped with the
// entry that shows it.
var (
	// ErrHostile is wrapped by everything that no honest tool writes.
	ErrHostile = errors.New("hostile or malformed layer")
	// ErrTruncated says that the layer ends too early.
	ErrTruncated = errors.New("truncated layer")
	// ErrLimit is wrapped by every excess of Limits.
	ErrLimit = errors.New("layer exceeds a limit")
	// ErrDigest says that the content is not what its digest promises.
	ErrDigest = errors.New("wrong digest")
)

// Limits bounds what one layer may cost. A zero field means its default.
type Limits struct {
	// Bytes bounds the uncompressed tar stream and, separately, the sum of
	// the sizes of its files, which sparse files make larger than the stream.
	Bytes int64
	// Entries bounds the number of tar entries and of the directories that
	// they lie in without an entry, together.
	Entries int
	// Depth bounds the components of a path.
	Depth int
	// PathBytes bounds the length of a path, also of a directory's with the links
	// in it resolved, and of a link target.
	PathBytes int
	// XattrBytes bounds the extended attributes of one entry, names included.
	XattrBytes int
	// DirBytes bounds what is held in memory of the layer's directories until
	// its end: their names and extended attributes, the paths of those without
	// an entry, and 512 bytes for each.
	DirBytes int64
	// Ratio bounds uncompressed to compressed size, once the uncompressed
	// size has passed RatioFloor. Honest layers stay below 100.
	Ratio      int64
	RatioFloor int64
}

// Default limits. SPECIFICATION.md and docs/images.md repeat them.
const (
	DefaultBytes      = 32 << 30
	DefaultEntries    = 1_000_000
	DefaultDepth      = 128
	DefaultPathBytes  = 4095 // PATH_MAX without its zero byte
	DefaultXattrBytes = 64 << 10
	DefaultDirBytes   = 192 << 20
	DefaultRatio      = 200
	DefaultRatioFloor = 1 << 30
	// DefaultImageBytes bounds the sum over the layers of one image, with
	// EntryBytes for each entry.
	DefaultImageBytes = 64 << 30
)

func (l Limits) withDefaults() Limits {
	set := func(p *int64, d int64) {
		if *p <= 0 {
			*p = d
		}
	}
	setInt := func(p *int, d int) {
		if *p <= 0 {
			*p = d
		}
	}
	set(&l.Bytes, DefaultBytes)
	setInt(&l.Entries, DefaultEntries)
	setInt(&l.Depth, DefaultDepth)
	setInt(&l.PathBytes, DefaultPathBytes)
	setInt(&l.XattrBytes, DefaultXattrBytes)
	set(&l.DirBytes, DefaultDirBytes)
	set(&l.Ratio, DefaultRatio)
	set(&l.RatioFloor, DefaultRatioFloor)
	return l
}

// Budget is shared by the layers of one image that are unpacked at a time.
type Budget struct{ left, total atomic.Int64 }

// EntryBytes is what an entry takes from a Budget beside its content and its
// extended attributes: about what a file system needs for an empty file.
const EntryBytes = 4 << 10

// NewBudget allows bytes of unpacked files in total, with EntryBytes for each
// entry.
func NewBudget(bytes int64) *Budget {
	b := new(Budget)
	b.left.Store(bytes)
	b.total.Store(bytes)
	return b
}

// Take uses n bytes up. A nil budget has no end.
func (b *Budget) Take(n int64) error {
	if b == nil {
		return nil
	}
	if left := b.left.Add(-n); left < 0 || n < 0 {
		return fmt.Errorf("%w: the image unpacks to more than %s", ErrLimit, bytesText(b.total.Load()))
	}
	return nil
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
