package image

import (
	"context"
	"errors"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Disk is an image as a read-only disk for a virtual machine.
type Disk struct {
	Path string // absolute; an EROFS image, 4 KiB blocks, not compressed
	Size int64  // bytes
	// MaxID is the largest user or group ID that owns a file in it.
	MaxID uint32
}

// ErrDiskLimit is wrapped when an image needs a larger disk than allowed.
var ErrDiskLimit = errors.New("image exceeds the disk limit")

// Disk returns the image with img.Digest as one file: the tree that overlayfs
// shows over its layers. The first call makes it; the file stays until release
// is called, and afterwards as long as the image does. progress may be nil; it
// is told how many bytes of the disk are written.
func (s *Store) Disk(ctx context.Context, img workload.Image, progress func(written int64)) (d Disk, release func(), err error) {
	return Disk{}, nil, workload.ErrUnsupported
}
