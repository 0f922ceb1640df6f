package registry

import (
	"context"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
)

// Push writes an image of the store to a registry under the name ref, which
// must have a tag and no digest. Bytes go over as they are stored, so the
// digest stays the same. It returns that digest.
func Push(ctx context.Context, store *image.Store, im image.Image, ref reference.Reference, opts Options) (digest.Digest, error) {
	if ref.Digest() != "" {
		return "", fmt.Errorf("%w %q: push to a tag, not to a digest", reference.ErrInvalid, ref)
	}
	op, err := store.Hold(im)
	if err != nil {
		return "", err
	}
	defer op.Close()
	s, err := newSession(ctx, ref, opts) // the library greets
	if err != nil {
		return "", err
	}
	if err := s.push(ctx, store, im, opts); err != nil {
		return "", fmt.Errorf("push %s: %w", ref.Familiar(), s.explain(err))
	}
	s.report(Event{Step: Done, Digest: im.Digest})
	return im.Digest, nil
}

func (s *session) push(ctx context.Context, store *image.Store, im image.Image, opts Options) error {
	rawManifest, rawConfig, err := store.Manifest(im)
	if err != nil {
		return err
	}
	m, err := manifest.Parse(rawManifest)
	if err != nil {
		return err
	}
	img, err := partial.CompressedToImage(&storedImage{store, m, rawManifest, rawConfig})
	if err != nil {
		return err
	}
	updates := make(chan v1.Update, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for u := range updates { // remote closes it
			if u.Error == nil {
				s.report(Event{Step: Upload, Bytes: u.Complete, Total: u.Total})
			}
		}
	}()
	tag := s.repo.Tag(s.ref.Tag())
	err = remote.Write(tag, img, remote.WithContext(ctx), remote.WithAuth(s.auth), remote.WithTransport(s.base),
		remote.WithJobs(parallel(opts)), remote.WithProgress(updates))
	<-done
	return err
}

// storedImage shows an image of the store to the library.
type storedImage struct {
	store       *image.Store
	m           *manifest.Manifest
	rawManifest []byte
	rawConfig   []byte
}

func (i *storedImage) RawManifest() ([]byte, error)   { return i.rawManifest, nil }
func (i *storedImage) RawConfigFile() ([]byte, error) { return i.rawConfig, nil }
func (i *storedImage) MediaType() (types.MediaType, error) {
	return types.MediaType(i.m.MediaType), nil
}
func (i *storedImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, l := range i.m.Layers {
		if l.Digest.String() == h.String() {
			return &storedLayer{i.store, l}, nil
		}
	}
	return nil, fmt.Errorf("no layer %s", h)
}

type storedLayer struct {
	store *image.Store
	d     manifest.Descriptor
}

func (l *storedLayer) Digest() (v1.Hash, error)           { return v1.NewHash(l.d.Digest.String()) }
func (l *storedLayer) Compressed() (io.ReadCloser, error) { return l.store.OpenBlob(l.d.Digest) }
func (l *storedLayer) Size() (int64, error)               { return l.d.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) {
	return types.MediaType(l.d.MediaType), nil
}
