package vm

import (
	"fmt"
	"math"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The memory of a machine, in bytes.
const (
	mib = 1 << 20

	// DefaultMemory is what a workload gets where no limit is given: a machine's
	// memory is finite.
	DefaultMemory = 512 * mib
	// guestOverhead is what the guest takes of its memory before a workload does,
	// so that a workload reaches its own limit before the guest is out of memory.
	// Seen of 608 MiB, all that is not MemAvailable: 163 MiB with Debian's
	// kernel (57 of it the kernel with its page structures, 68 its data, its
	// modules and the agent, 37 what it keeps free), 94 with the small one. It is
	// more than what either needs to boot, which is 112 and 48: there is no
	// --memory that is too small for that.
	guestOverhead = 160 * mib
	// pageStructures is the part of its memory that a kernel describes the rest
	// in: 64 bytes for each page of 4096.
	pageStructures = 64
	// minSystem is the least that a whole system boots with.
	minSystem = 256 * mib
	// fileServer is what the helper that serves one volume may use.
	fileServer = 256 * mib

	// maxMemory keeps a mistyped size from being taken for a wish.
	maxMemory = 1 << 40
	// vmmTasks bounds the threads of the VMM and its helpers.
	vmmTasks = 256
)

// size is how large a machine is.
type size struct {
	cpus  int
	ram   int64 // bytes of guest memory, a multiple of 1 MiB
	total int64 // bytes that the machine's cgroup may use
	quota float64
}

// sizeOf works out a machine for s. A workload of a tenant has no machine, but
// helpers of its own.
func sizeOf(s workload.Spec, accel qemu.Accel, shared bool) (size, error) {
	volumes := int64(0)
	for _, m := range s.Mounts {
		if m.Type == "bind" {
			volumes += fileServer
		}
	}
	if shared {
		return size{total: max(volumes, mib)}, nil
	}
	z := size{cpus: 1, quota: s.Resources.CPUs}
	if z.quota > 0 {
		z.cpus = int(math.Ceil(z.quota))
	}
	memory := memoryOf(s.Resources)
	if memory <= 0 || memory > maxMemory {
		return z, fmt.Errorf("%d bytes of memory: a machine takes 1 byte to 1 TiB", memory)
	}
	overhead := memory/pageStructures + guestOverhead
	if s.VM.System {
		// The machine's memory is the system's, kernel and all.
		if overhead = 0; memory < minSystem {
			return z, fmt.Errorf("%w: %d MiB of memory for a whole system, which needs at least %d", workload.ErrUnsupported, memory/mib, minSystem/mib)
		}
	}
	z.ram = (memory + overhead + mib - 1) / mib * mib
	z.total = z.ram + qemu.Overhead(accel, z.cpus) + volumes
	return z, nil
}

// memoryOf is the limit of the workload inside.
func memoryOf(r workload.Resources) int64 {
	if r.Memory != nil {
		return *r.Memory
	}
	return DefaultMemory
}

// limits are those of the machine's cgroup on the host. Where swap is accounted it
// has a limit too: all of a machine may be swapped out, and a VMM that is taken over
// gets no more of the host's swap than that.
func (z size) limits(s workload.Spec) (*specs.LinuxResources, error) {
	host, err := cgroup.Probe(cgroup.Options{})
	if err != nil {
		return nil, err
	}
	tasks := int64(vmmTasks)
	r := z.shares(s)
	r.Memory, r.Pids = host.Memory(z.total), &specs.LinuxPids{Limit: &tasks}
	return r, nil
}

// group is the cgroup with these limits, which is not made yet.
func (z size) group(path string, s workload.Spec) (*cgroup.Manager, error) {
	r, err := z.limits(s)
	if err != nil {
		return nil, err
	}
	return cgroup.New(path, r, cgroup.Options{Strict: true})
}

// shares are those of processor time.
func (z size) shares(s workload.Spec) *specs.LinuxResources {
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{}}
	if z.quota > 0 {
		const period = 100000 // microseconds, the kernel's default
		quota, p := int64(z.quota*period), uint64(period)
		r.CPU.Quota, r.CPU.Period = &quota, &p
	}
	if w := s.Resources.CPUWeight; w > 0 {
		r.CPU.Shares = &w
	}
	return r
}

// inside is what the agent is asked for.
func inside(s workload.Spec) workload.Spec {
	own := s.VM.Tenant == ""
	// What the host has made of these, the agent gets beside the spec.
	s.Networks, s.Ports, s.DNS, s.ExtraHosts = nil, nil, workload.DNS{}, nil
	if s.VM.System {
		// The machine is the limit.
		s.Resources = workload.Resources{}
		s.Boundary, s.VM, s.Labels, s.Network = "", workload.VM{System: true}, nil, "none"
		return s
	}
	s.Boundary, s.VM, s.Labels = "container", workload.VM{}, nil
	s.Network = "none"
	if own {
		s.Resources.CPUWeight = 0 // between machines, where it is in force
		memory := memoryOf(s.Resources)
		s.Resources.Memory, s.Resources.MemorySwap = &memory, nil // there is no swap
	}
	return s
}
