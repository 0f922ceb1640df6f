package main

import (
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/gvisor"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/runtime"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
)

// boundaries are those that workloads can name. cmd/bulkhead-supervisor must
// know the same ones.
func boundaries() []boundary.Boundary {
	reach := func(socket string) boundary.Host { return wire.Host{Dir: socket} }
	return []boundary.Boundary{container.Boundary{}, gvisor.Boundary{}, vm.Boundary{Reach: reach}, runtime.Boundary{}}
}

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
