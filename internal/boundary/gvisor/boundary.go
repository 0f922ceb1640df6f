// Package gvisor is the boundary "gvisor": a kernel in user space, gVisor's
// runsc, between the workload and the host's kernel.
//
// The sandbox is as confined as a container besides: in a user namespace with a
// range of IDs of its own, and in the workload's cgroup. See package ociruntime
// for how it is driven, and docs/boundaries.md for what is different inside.
package gvisor

import (
	"context"
	"fmt"
	"io"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/ociruntime"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Boundary makes gVisor sandboxes. Its zero value is ready.
type Boundary struct {
	// Program is the path of runsc; "" is the one beside this program, or where packages put programs.
	Program string
}

var _ boundary.Explainer = Boundary{}

const program = "runsc"

// Name returns "gvisor".
func (Boundary) Name() string { return "gvisor" }

// runtime finds the runsc for a workload.
func (b Boundary) runtime(s workload.Spec) (ociruntime.Runtime, error) {
	r := ociruntime.Runtime{Boundary: b.Name(), Name: program, Program: b.Program, Sentry: true}
	if s.Runtime.Path != "" { // registered, and asked for
		r.Name, r.Program = s.Runtime.Name, s.Runtime.Path
	}
	if r.Program == "" {
		var err error
		if r.Program, err = ociruntime.Find(program); err != nil {
			return r, fmt.Errorf("%w: the boundary gvisor needs gVisor's runsc, which `make runsc` builds: %w", workload.ErrUnsupported, err)
		}
	}
	return r, nil
}

// Check wants runsc, and what containers want.
func (b Boundary) Check(ctx context.Context) error {
	r, err := b.runtime(workload.Spec{})
	if err != nil {
		return err
	}
	return r.Check(ctx)
}

// Needs is what containers need.
func (Boundary) Needs(s workload.Spec) boundary.Needs { return ociruntime.Needs(s) }

// Create makes the sandbox of s.
func (b Boundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	if err := check(s); err != nil {
		return nil, err
	}
	r, err := b.runtime(s)
	if err != nil {
		return nil, err
	}
	return r.Create(ctx, s, p)
}

// Open finds what is left of a workload whose supervisor is gone.
func (b Boundary) Open(ctx context.Context, id workload.ID, dir string) (boundary.Instance, error) {
	return ociruntime.Runtime{Boundary: b.Name(), Name: program}.Open(ctx, id, dir)
}

// Explain prints what runsc is asked to do.
func (b Boundary) Explain(s workload.Spec, p boundary.Prepared, w io.Writer) error {
	if err := check(s); err != nil {
		return err
	}
	r, err := b.runtime(s)
	if err != nil {
		r.Program = program // it is not run
	}
	return r.Explain(s, p, w)
}
