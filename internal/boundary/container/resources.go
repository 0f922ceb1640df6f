package container

import (
	"fmt"
	"math"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// cpuPeriod is the period of a processor quota, microseconds.
const cpuPeriod = 100_000

// resources turns limits into the runtime spec's. The device rules are always
// there: nothing but the default devices.
func resources(r workload.Resources) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{Devices: container.DefaultDeviceRules()}
	if r.Memory != nil || r.MemorySwap != nil || r.MemoryReservation != nil {
		out.Memory = &specs.LinuxMemory{Limit: r.Memory, Swap: r.MemorySwap, Reservation: r.MemoryReservation}
	}
	cpu := &specs.LinuxCPU{Cpus: r.CpusetCPUs, Mems: r.CpusetMems}
	if r.CPUs < 0 || math.IsNaN(r.CPUs) || math.IsInf(r.CPUs, 0) {
		return nil, fmt.Errorf("cpus %v: want a positive number", r.CPUs)
	}
	if r.CPUs > 0 {
		period, quota := uint64(cpuPeriod), int64(r.CPUs*cpuPeriod)
		if quota < 1000 { // the kernel's least quota, 1 ms
			return nil, fmt.Errorf("cpus %v: want at least 0.01", r.CPUs)
		}
		cpu.Period, cpu.Quota = &period, &quota
	}
	if r.CPUWeight > 0 {
		shares := r.CPUWeight
		cpu.Shares = &shares
	}
	if *cpu != (specs.LinuxCPU{}) {
		out.CPU = cpu
	}
	if r.Pids != nil {
		out.Pids = &specs.LinuxPids{Limit: r.Pids}
	}
	for _, kv := range r.Unified {
		if _, twice := out.Unified[kv.Key]; twice {
			return nil, fmt.Errorf("cgroup setting %s is given twice", kv.Key)
		}
		if out.Unified == nil {
			out.Unified = map[string]string{}
		}
		out.Unified[kv.Key] = kv.Value
	}
	var err error
	out.BlockIO, err = blockIO(r)
	return out, err
}

func blockIO(r workload.Resources) (*specs.LinuxBlockIO, error) {
	if r.IOWeight == 0 && len(r.IOLimits) == 0 {
		return nil, nil
	}
	out := &specs.LinuxBlockIO{}
	if r.IOWeight > 0 {
		w := r.IOWeight
		out.Weight = &w
	}
	for _, l := range r.IOLimits {
		var st unix.Stat_t
		if err := unix.Stat(l.Device, &st); err != nil {
			return nil, fmt.Errorf("I/O limit: %s: %w", l.Device, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return nil, fmt.Errorf("I/O limit: %s is not a block device", l.Device)
		}
		for _, f := range []struct {
			rate uint64
			list *[]specs.LinuxThrottleDevice
		}{{l.ReadBPS, &out.ThrottleReadBpsDevice}, {l.WriteBPS, &out.ThrottleWriteBpsDevice}, {l.ReadIOPS, &out.ThrottleReadIOPSDevice}, {l.WriteIOPS, &out.ThrottleWriteIOPSDevice}} {
			if f.rate > 0 {
				d := specs.LinuxThrottleDevice{Rate: f.rate}
				d.Major, d.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
				*f.list = append(*f.list, d)
			}
		}
	}
	return out, nil
}
