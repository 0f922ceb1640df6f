package main

import (
	"context"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// boundaries are those that workloads can name. cmd/bulkhead-supervisor must
// know the same ones.
func boundaries() []boundary.Boundary { return []boundary.Boundary{container.Boundary{}} }

// images opens the image store of the chosen state.
func (a *app) images() (*image.Store, error) {
	if err := mustBeRoot(); err != nil {
		return nil, err
	}
	root, _, err := a.roots()
	if err != nil {
		return nil, err
	}
	return image.Open(root)
}

// imageSource gives the engine the layers of the store's images.
type imageSource struct{ store *image.Store }

func (s imageSource) Layers(ctx context.Context, img workload.Image) ([]string, func(), error) {
	im, err := s.store.Resolve(img.Digest)
	if err != nil {
		return nil, nil, fmt.Errorf("image %s: %w", img.Reference, err)
	}
	chain, err := s.store.Layers(ctx, im)
	if err != nil {
		return nil, nil, fmt.Errorf("image %s: %w", img.Reference, err)
	}
	return chain.Dirs, func() { _ = chain.Release() }, nil // the next command removes what a failed release leaves
}
