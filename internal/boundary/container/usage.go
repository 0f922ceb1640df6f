package container

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/procs"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var (
	_ boundary.Updater   = (*instance)(nil)
	_ boundary.Measurer  = (*instance)(nil)
	_ boundary.Describer = (*instance)(nil)
)

// Update changes limits. A memory limit below what is in use is refused: on
// cgroup v2 the kernel would kill for it, on v1 it would refuse it with a word
// that explains nothing.
func (i *instance) Update(_ context.Context, r workload.Resources) error {
	if r.OOMScoreAdj != nil || r.ShmSize != 0 {
		return fmt.Errorf("%w: --oom-score-adj and --shm-size are settled when a workload starts", workload.ErrUnsupported)
	}
	res, err := resources(r)
	if err != nil {
		return err
	}
	res.Devices = nil // they stay
	if r.Memory != nil && *r.Memory > 0 {
		st, err := i.cgroup.Stats()
		if err != nil {
			return gone(err)
		}
		if used := st.Memory.Current - min(st.Memory.Cache, st.Memory.Current); used > uint64(*r.Memory) {
			return fmt.Errorf("--memory %d: the workload uses %d bytes now", *r.Memory, used)
		}
	}
	return gone(i.cgroup.Change(res, cgroup.Options{Strict: true, Names: limitNames(r)}))
}

// gone says that a cgroup that is not there is the workload's end.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", workload.ErrNotRunning, err)
	}
	return err
}

// Measure reads the cgroup's figures, and those of the interfaces in a network
// namespace of the workload's own.
func (i *instance) Measure(context.Context) (workload.Usage, error) {
	st, err := i.cgroup.Stats()
	if err != nil {
		return workload.Usage{}, gone(err)
	}
	u := UsageOf(st)
	if i.spec.Network != workload.NetworkHost {
		if u.NetReceived, u.NetSent, err = procs.Traffic(i.PID()); err != nil {
			return workload.Usage{}, gone(err)
		}
	}
	return u, nil
}

// UsageOf are the figures of a cgroup as a workload's.
func UsageOf(st cgroup.Stats) workload.Usage {
	return workload.Usage{
		At: time.Now(), CPU: st.CPU.Usage,
		Memory: figure(st.Memory.Current - min(st.Memory.Inactive, st.Memory.Current)), MemoryLimit: figure(st.Memory.Limit),
		Pids: figure(st.Pids.Current), PidsLimit: figure(st.Pids.Limit),
		BlockRead: figure(st.IO.ReadBytes), BlockWrite: figure(st.IO.WriteBytes),
	}
}

// figure is n, 0 for no limit.
func figure(n uint64) int64 {
	if n > math.MaxInt64 {
		return 0
	}
	return int64(n)
}

// Describe reads about each process in the cgroup. IDs of processes and users
// are those inside; a process of another pid namespace, such as one that
// --pid host shows, has that of the workload's.
func (i *instance) Describe(context.Context) ([]workload.ProcessInfo, error) {
	pids, err := i.cgroup.Pids(true)
	if err != nil {
		return nil, gone(err)
	}
	first, err := procs.Read(i.PID())
	if err != nil {
		return nil, gone(err)
	}
	d := procs.View{Level: len(first.IDs) - 1, User: i.userInside}
	if i.spec.Namespaces.HostPID {
		d.Level = 0
	}
	return d.Of(pids)
}

// overflowUser is who owns what has no ID in a user namespace, see
// user_namespaces(7).
const overflowUser = 65534

// userInside maps a user ID of the host's.
func (i *instance) userInside(uid uint32) uint32 {
	switch {
	case i.spec.Namespaces.HostUser:
		return uid
	case uid-i.idBase < i.idCount: // also false below idBase
		return uid - i.idBase
	}
	return overflowUser
}
