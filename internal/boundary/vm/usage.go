package vm

import (
	"context"
	"fmt"
	"reflect"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var (
	_ boundary.Updater   = (*instance)(nil)
	_ boundary.Measurer  = (*instance)(nil)
	_ boundary.Describer = (*instance)(nil)

	_ boundary.Updater  = (*tenant)(nil)
	_ boundary.Measurer = (*tenant)(nil)
)

// asked gives the guest of a workload that is paused the processors back while
// it is asked something, for a limited time.
func (i *instance) asked(ctx context.Context, f func(context.Context) error) error {
	return i.transfer(ctx, func() error { return within(ctx, answerTimeout, f) })
}

// Measure asks the guest, and reads what its machine takes of the host.
func (i *instance) Measure(ctx context.Context) (u workload.Usage, err error) {
	err = i.asked(ctx, func(ctx context.Context) (err error) {
		u, err = i.Instance.Measure(ctx)
		return err
	})
	if err != nil || i.machine == nil {
		return u, err
	}
	st, err := i.cgroup.Stats()
	if err != nil {
		return u, err
	}
	onHost(&u, st)
	return u, nil
}

// onHost fills in what a machine's cgroup says it takes of the host.
func onHost(u *workload.Usage, st cgroup.Stats) {
	u.HostCPU = st.CPU.Usage
	u.HostMemory = int64(st.Memory.Current - min(st.Memory.Inactive, st.Memory.Current))
}

// Measure reads what a tenant's machine takes of the host, and asks its guest
// how full its memory is. Processor time, tasks and disk traffic are the host's
// figures: a guest's are its workloads'.
func (t *tenant) Measure(ctx context.Context) (workload.Usage, error) {
	var guest protocol.Status
	err := within(ctx, answerTimeout, func(ctx context.Context) (err error) {
		guest, err = clientOf(t.machine).Status(ctx)
		return err
	})
	if err != nil {
		return workload.Usage{}, t.blame(err)
	}
	st, err := t.cgroup.Stats()
	if err != nil {
		return workload.Usage{}, err
	}
	u := workload.Usage{
		At: time.Now(), CPU: st.CPU.Usage,
		Memory: guest.MemoryTotal - guest.MemoryAvailable, MemoryLimit: guest.MemoryTotal,
		Pids: int64(st.Pids.Current), PidsLimit: vmmTasks,
		BlockRead: int64(st.IO.ReadBytes), BlockWrite: int64(st.IO.WriteBytes),
	}
	onHost(&u, st)
	return u, nil
}

// Update changes how much of the host's processors a tenant's machine gets, up
// to as many as it has. Its memory is settled when it starts.
func (t *tenant) Update(_ context.Context, r workload.Resources) error {
	host := (size{quota: r.CPUs}).shares(workload.Spec{Resources: r})
	if r.CPUs > float64(t.size.cpus) {
		return fmt.Errorf("%w: --cpus: the machine was started with %d processors; stop the tenant first", workload.ErrUnsupported, t.size.cpus)
	}
	r.CPUs, r.CPUWeight = 0, 0
	if r.Memory != nil {
		return fmt.Errorf("%w: --memory: the machine was started with %d MiB for itself and its workloads; stop the tenant first", workload.ErrUnsupported, t.size.ram/mib)
	}
	if !reflect.ValueOf(r).IsZero() {
		return fmt.Errorf("%w: a tenant's machine has limits of memory and processors only", workload.ErrUnsupported)
	}
	if *host.CPU == (specs.LinuxCPU{}) {
		return nil
	}
	return t.cgroup.Change(host, cgroup.Options{Strict: true})
}

// Describe asks the guest.
func (i *instance) Describe(ctx context.Context) (all []workload.ProcessInfo, err error) {
	err = i.asked(ctx, func(ctx context.Context) (err error) {
		all, err = i.Instance.Describe(ctx)
		return err
	})
	return all, err
}

// Update changes what can change while the guest runs: inside by the agent, and
// outside in the cgroup of the machine. Memory and processors are the machine's
// hardware, so there can be less of them, and not more than at its start.
func (i *instance) Update(ctx context.Context, r workload.Resources) error {
	if err := i.refuse(r); err != nil {
		return err
	}
	in := r
	var host *specs.LinuxResources
	if i.machine != nil {
		in.CPUWeight, in.MemorySwap = 0, nil // as at the start: see inside
		host = (size{quota: r.CPUs}).shares(workload.Spec{Resources: r})
	}
	if i.spec.VM.System {
		in = workload.Resources{}
	}
	if in.Memory != nil || in.MemorySwap != nil || in.MemoryReservation != nil || in.CPUs != 0 || in.CPUWeight != 0 || in.Pids != nil {
		err := i.asked(ctx, func(ctx context.Context) error { return i.Instance.Update(ctx, in) })
		if err != nil {
			return err
		}
	}
	if host == nil || *host.CPU == (specs.LinuxCPU{}) {
		return nil
	}
	return i.cgroup.Change(host, cgroup.Options{Strict: true})
}

// refuse says what cannot be changed, and why.
func (i *instance) refuse(r workload.Resources) error {
	no := func(flag, why string) error {
		return fmt.Errorf("%w: %s: %s", workload.ErrUnsupported, flag, why)
	}
	const own = "a virtual machine has a kernel of its own"
	switch {
	case r.OOMScoreAdj != nil || r.ShmSize != 0:
		return no("--oom-score-adj and --shm-size", "they are settled when a workload starts")
	case r.CpusetCPUs != "" || r.CpusetMems != "":
		return no("--cpuset-cpus and --cpuset-mems", own)
	case r.IOWeight != 0 || len(r.IOLimits) > 0:
		return no("--blkio-weight and --device-…", own)
	case i.machine == nil:
		return nil
	case r.MemorySwap != nil && *r.MemorySwap != memoryOf(merge(i.spec.Resources, r)):
		return no("--memory-swap", "the guest has no swap")
	}
	if had := memoryOf(i.spec.Resources); r.Memory != nil && *r.Memory > had {
		return no("--memory", fmt.Sprintf("the machine was started with memory for %d bytes; stop the workload first", had))
	}
	if r.Memory != nil && *r.Memory <= 0 {
		return no("--memory", "a machine's memory is finite")
	}
	if r.CPUs > float64(i.size.cpus) {
		return no("--cpus", fmt.Sprintf("the machine was started with %d processors; stop the workload first", i.size.cpus))
	}
	if i.spec.VM.System && (r.Memory != nil || r.MemoryReservation != nil || r.Pids != nil) {
		return no("--memory and --pids-limit", "the machine is a whole system's limit; stop it first")
	}
	return nil
}

// merge lays what changes over what is.
func merge(old, changed workload.Resources) workload.Resources {
	if changed.Memory != nil {
		old.Memory = changed.Memory
	}
	return old
}
