package ociruntime

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/procs"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var (
	_ boundary.Pauser   = (*instance)(nil)
	_ boundary.Updater  = (*instance)(nil)
	_ boundary.Measurer = (*instance)(nil)
)

// Update changes limits.
func (i *instance) Update(_ context.Context, r workload.Resources) error {
	return runtimespec.Update(i.cgroup, r)
}

// Measure reads the cgroup's figures, the runtime's own processes and gVisor's
// kernel included, and those of the interfaces in the network namespace.
func (i *instance) Measure(context.Context) (workload.Usage, error) {
	st, err := i.cgroup.Stats()
	if err != nil {
		return workload.Usage{}, runtimespec.Gone(err)
	}
	u := runtimespec.UsageOf(st)
	if i.spec.Network == workload.NetworkHost {
		return u, nil
	}
	err = i.first.While(func(pid int) (err error) {
		u.NetReceived, u.NetSent, err = procs.Traffic(pid)
		return err
	})
	return u, notRunning(err)
}
