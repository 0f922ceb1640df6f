// Package runtime is the boundary "runtime": whatever an OCI runtime makes that
// the user registered, such as runc or crun.
//
// What isolates the workload is the runtime's affair. It gets the specification
// of the boundary "container", and the limits are in force on the host whatever
// it makes of them; see package ociruntime.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/ociruntime"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Boundary makes containers by a runtime that the workload names.
type Boundary struct {
	// Default is the runtime of a workload that names none.
	Default workload.Runtime
}

var _ boundary.Explainer = Boundary{}

// Name returns "runtime".
func (Boundary) Name() string { return workload.BoundaryRuntime }

// Check wants what containers want. Whether a runtime can be used is found out
// when it is registered, and when a workload is made.
func (b Boundary) Check(ctx context.Context) error {
	r := ociruntime.Runtime{Boundary: b.Name(), Name: b.Default.Name, Program: b.Default.Path}
	if r.Program == "" {
		return r.CheckHost()
	}
	return r.Check(ctx)
}

// Needs is what containers need.
func (Boundary) Needs(s workload.Spec) boundary.Needs { return ociruntime.Needs(s) }

func (b Boundary) runtime(s workload.Spec) (ociruntime.Runtime, error) {
	r := s.Runtime
	if r == (workload.Runtime{}) {
		r = b.Default
	}
	if r.Name == "" || r.Path == "" {
		return ociruntime.Runtime{}, errors.New("the boundary runtime needs a runtime: --runtime NAME")
	}
	return ociruntime.Runtime{Boundary: b.Name(), Name: r.Name, Program: r.Path}, nil
}

// Create makes the container of s.
func (b Boundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	r, err := b.runtime(s)
	if err != nil {
		return nil, err
	}
	i, err := r.Create(ctx, s, p)
	if errors.Is(err, workload.ErrUnsupported) {
		return nil, fmt.Errorf("--runtime %s: %w", r.Name, err)
	}
	return i, err
}

// Open finds what is left of a workload whose supervisor is gone. It needs no
// runtime.
func (b Boundary) Open(ctx context.Context, id workload.ID, dir string) (boundary.Instance, error) {
	return ociruntime.Runtime{Boundary: b.Name()}.Open(ctx, id, dir)
}

// Explain prints what the runtime is asked to do.
func (b Boundary) Explain(s workload.Spec, p boundary.Prepared, w io.Writer) error {
	r, err := b.runtime(s)
	if err != nil {
		return err
	}
	return r.Explain(s, p, w)
}
