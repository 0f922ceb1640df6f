package image

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Source gives the layers of images in the engine's words.
type Source struct{ Store *Store }

// Layers returns the unpacked layers of the image with img.Digest, lowest
// first, as absolute paths. They stay until release is called. The mode and
// owner of the last are those of the image's root.
func (s Source) Layers(ctx context.Context, img workload.Image) (dirs []string, release func(), err error) {
	im, err := s.Store.Resolve(img.Digest)
	if err != nil {
		return nil, nil, err
	}
	chain, err := s.Store.Layers(ctx, im)
	if err != nil {
		return nil, nil, err
	}
	return chain.Dirs, func() { chain.Release() }, nil // what Release leaves, the next Open clears
}
