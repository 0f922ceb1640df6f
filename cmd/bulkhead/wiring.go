package main

import (
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
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
