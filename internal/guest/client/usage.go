package client

import (
	"context"
	"fmt"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var (
	_ boundary.Updater   = (*Instance)(nil)
	_ boundary.Measurer  = (*Instance)(nil)
	_ boundary.Describer = (*Instance)(nil)
)

// Update changes the limits of the workload in the guest.
func (i *Instance) Update(ctx context.Context, r workload.Resources) error {
	_, err := i.c.call(ctx, protocol.Request{Op: protocol.OpUpdate, ID: i.id, Resources: &r})
	return err
}

// Measure tells what the workload uses of its guest. The time is this machine's.
func (i *Instance) Measure(ctx context.Context) (workload.Usage, error) {
	r, err := i.call(ctx, protocol.OpMeasure)
	if err != nil {
		return workload.Usage{}, err
	}
	if r.Usage == nil {
		return workload.Usage{}, fmt.Errorf("%w: figures without figures", protocol.ErrProtocol)
	}
	r.Usage.At = time.Now()
	return *r.Usage, nil
}

// Describe describes the workload's processes. When they started is by the
// guest's clock.
func (i *Instance) Describe(ctx context.Context) ([]workload.ProcessInfo, error) {
	r, err := i.call(ctx, protocol.OpDescribe)
	if err != nil {
		return nil, err
	}
	return r.Described, nil
}
