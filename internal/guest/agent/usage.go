package agent

import (
	"context"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// describe describes the processes of a workload, as many as a Reply holds.
func (e *entry) describe(ctx context.Context) (protocol.Described, error) {
	d, ok := e.inst.(boundary.Describer)
	if !ok {
		return nil, fmt.Errorf("%w: describing processes", workload.ErrUnsupported)
	}
	all, err := d.Describe(ctx)
	return protocol.Described(all).Fitting(), err
}

func (e *entry) measure(ctx context.Context) (*workload.Usage, error) {
	m, ok := e.inst.(boundary.Measurer)
	if !ok {
		return nil, fmt.Errorf("%w: measuring", workload.ErrUnsupported)
	}
	u, err := m.Measure(ctx)
	if err != nil {
		return nil, err
	}
	return &u, nil
}

func (e *entry) update(ctx context.Context, r *workload.Resources) error {
	if r == nil {
		return fmt.Errorf("%w: an update of nothing", protocol.ErrProtocol)
	}
	u, ok := e.inst.(boundary.Updater)
	if !ok {
		return fmt.Errorf("%w: changing limits", workload.ErrUnsupported)
	}
	return u.Update(ctx, *r)
}
