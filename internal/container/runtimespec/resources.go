package runtimespec

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// cpuPeriod is the period of a processor quota, microseconds.
const cpuPeriod = 100_000

// Resources turns limits into the runtime spec's. The device rules are always
// there: nothing but the default devices.
func Resources(r workload.Resources) (*specs.LinuxResources, error) {
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
			return nil, fmt.Errorf("%s: %w", ioFlags(l), err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return nil, fmt.Errorf("%s: %s is not a block device", ioFlags(l), l.Device)
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

// rates are the limits on a block device: what package cgroup calls each, and
// the flag that asks for it.
var rates = []struct {
	limit, flag string
	of          func(workload.IOLimit) uint64
}{
	{cgroup.IOReadRate, "--device-read-bps", func(l workload.IOLimit) uint64 { return l.ReadBPS }},
	{cgroup.IOWriteRate, "--device-write-bps", func(l workload.IOLimit) uint64 { return l.WriteBPS }},
	{cgroup.IOReadOpsRate, "--device-read-iops", func(l workload.IOLimit) uint64 { return l.ReadIOPS }},
	{cgroup.IOWriteOpsRate, "--device-write-iops", func(l workload.IOLimit) uint64 { return l.WriteIOPS }},
}

// ioFlags are the flags that ask for the limits on one device.
func ioFlags(l workload.IOLimit) string {
	var flags []string
	for _, r := range rates {
		if r.of(l) > 0 {
			flags = append(flags, rateFlag(r.flag, l.Device, r.of(l)))
		}
	}
	return strings.Join(flags, ", ")
}

func rateFlag(flag, device string, rate uint64) string {
	return fmt.Sprintf("%s %q", flag, device+":"+strconv.FormatUint(rate, 10))
}

// LimitNames names each limit by the flag that asks for it and the value, so
// that an error of package cgroup tells what to change on the command line.
// Sizes are in bytes, however they were typed.
func LimitNames(r workload.Resources) map[string]string {
	names := map[string]string{}
	number := func(limit, flag string, n *int64) {
		if n != nil {
			names[limit] = flag + " " + strconv.FormatInt(*n, 10)
		}
	}
	number(cgroup.MemoryLimit, "--memory", r.Memory)
	number(cgroup.SwapLimit, "--memory-swap", r.MemorySwap)
	number(cgroup.MemoryReservation, "--memory-reservation", r.MemoryReservation)
	number(cgroup.PidsLimit, "--pids-limit", r.Pids)
	names[cgroup.CPUQuota] = fmt.Sprintf("--cpus %g", r.CPUs)
	names[cgroup.CPUShares] = fmt.Sprintf("--cpu-shares %d", r.CPUWeight)
	names[cgroup.IOWeight] = fmt.Sprintf("--blkio-weight %d", r.IOWeight)
	names[cgroup.CpusetCPUs] = fmt.Sprintf("--cpuset-cpus %q", r.CpusetCPUs)
	names[cgroup.CpusetMems] = fmt.Sprintf("--cpuset-mems %q", r.CpusetMems)
	for _, rate := range rates {
		var flags []string
		for _, l := range r.IOLimits {
			if n := rate.of(l); n > 0 {
				flags = append(flags, rateFlag(rate.flag, l.Device, n))
			}
		}
		if len(flags) > 0 {
			names[rate.limit] = strings.Join(flags, ", ")
		}
	}
	return names
}
