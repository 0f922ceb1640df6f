package image

import (
	"context"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Source gives the layers and disks of images in the engine's words.
type Source struct{ Store *Store }

// Layers returns the unpacked layers of the image with img.Digest, lowest
// first, as absolute paths. They stay until release is called. The mode and
// owner of the last are those of the image's root.
func (s Source) Layers(ctx context.Context, img workload.Image) (workload.Layers, func(), error) {
	im, err := s.Store.Resolve(img.Digest)
	if err != nil {
		return workload.Layers{}, nil, fmt.Errorf("image %s: %w", img.Reference, err)
	}
	chain, err := s.Store.Layers(ctx, im)
	if err != nil {
		return workload.Layers{}, nil, fmt.Errorf("image %s: %w", img.Reference, err)
	}
	return workload.Layers{Dirs: chain.Dirs, MaxID: chain.MaxID}, func() { chain.Release() }, nil // what Release leaves, the next Open clears
}

// Disk returns the image with img.Digest as a virtual machine's disk; see
// Store.Disk.
func (s Source) Disk(ctx context.Context, img workload.Image, progress func(written int64)) (Disk, func(), error) {
	return s.Store.Disk(ctx, img, progress)
}
