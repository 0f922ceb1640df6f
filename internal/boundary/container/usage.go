package container

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/procs"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var (
	_ boundary.Updater   = (*instance)(nil)
	_ boundary.Measurer  = (*instance)(nil)
	_ boundary.Describer = (*instance)(nil)
)

// Update changes limits.
func (i *instance) Update(_ context.Context, r workload.Resources) error {
	return runtimespec.Update(i.cgroup, r)
}

// Measure reads the cgroup's figures, and those of the interfaces in a network
// namespace of the workload's own.
func (i *instance) Measure(context.Context) (workload.Usage, error) {
	st, err := i.cgroup.Stats()
	if err != nil {
		return workload.Usage{}, runtimespec.Gone(err)
	}
	u := runtimespec.UsageOf(st)
	if i.spec.Network != workload.NetworkHost {
		if u.NetReceived, u.NetSent, err = procs.Traffic(i.PID()); err != nil {
			return workload.Usage{}, runtimespec.Gone(err)
		}
	}
	return u, nil
}

// Describe reads about each process in the cgroup. IDs of processes and users
// are those inside; a process of another pid namespace, such as one that
// --pid host shows, has that of the workload's.
func (i *instance) Describe(context.Context) ([]workload.ProcessInfo, error) {
	pids, err := i.cgroup.Pids(true)
	if err != nil {
		return nil, runtimespec.Gone(err)
	}
	first, err := procs.Read(i.PID())
	if err != nil {
		return nil, runtimespec.Gone(err)
	}
	d := procs.View{Level: len(first.IDs) - 1, User: runtimespec.UserInside(i.spec, i.idBase, i.idCount)}
	if i.spec.Namespaces.HostPID {
		d.Level = 0
	}
	return d.Of(pids)
}
