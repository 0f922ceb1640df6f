package archive

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
)

// ImportOptions says what the image made from a root file system is to be.
type ImportOptions struct {
	Name     string            // may be empty: the image then has only its ID
	Changes  []string          // Dockerfile instructions, as "docker import --change" takes them
	Message  string            // of the history
	Platform manifest.Platform // the zero value is the host's
	Created  time.Time         // zero is now
	// Progress is told how many bytes of the plain archive were read.
	Progress func(int64)
}

// Import makes an image of one layer from the tar of a root file system, plain
// or compressed with gzip or zstd. r need not heed the context.
func Import(ctx context.Context, s *image.Store, r io.Reader, opts ImportOptions) (image.Image, error) {
	if opts.Platform.OS == "" {
		opts.Platform = manifest.Host()
	}
	if opts.Created.IsZero() {
		opts.Created = time.Now()
	}
	created := opts.Created.UTC()
	names, err := newNames(opts.Name)
	if err != nil {
		return image.Image{}, err
	}
	var run manifest.RunConfig
	if err := Change(&run, opts.Changes...); err != nil {
		return image.Image{}, err
	}
	op, err := s.Begin()
	if err != nil {
		return image.Image{}, err
	}
	defer op.Close()
	layer, err := op.AddLayer(ctx, unpack.Interruptible(ctx, r), opts.Progress)
	if err != nil {
		return image.Image{}, err
	}
	config, err := json.Marshal(manifest.Config{
		Created:  &created,
		Platform: opts.Platform,
		Config:   run,
		RootFS:   manifest.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.DiffID}},
		History:  []manifest.History{{Created: &created, Comment: opts.Message, CreatedBy: "bulkhead image import"}},
	})
	if err != nil {
		return image.Image{}, err
	}
	return commit(ctx, op, config, []manifest.Descriptor{layer.Blob}, names...)
}
