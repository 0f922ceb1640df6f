package cgroup

import (
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Bounds of kernel/sched/core.c, in microseconds, and of the v1 shares.
const (
	minQuota  = 1000
	minPeriod = 1000
	maxPeriod = 1000000
	minShares = 2
	maxShares = 262144
	// maxQuota is the kernel's max_bw_runtime_us.
	maxQuota = 1<<44/1000 - 1
)

// cpu converts shares, bandwidth and scheduling class; times are in
// microseconds.
func (d *demand) cpu(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	idle := c.Idle != nil && *c.Idle == 1
	if s := value(c.Shares); s != 0 {
		switch {
		case s < minShares || s > maxShares:
			d.invalid(CPUShares, "%d is not between %d and %d", s, minShares, maxShares)
		case idle:
			d.invalid(CPUShares, "an idle cgroup has none")
		}
		d.add(CPUShares, "cpu", "cpu", func(l *limit) {
			if l.v2 {
				l.res.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(s)
			} else {
				l.res.CpuShares = s
			}
		})
	}
	d.bandwidth(c)
	d.realtime(c)
	if c.Idle != nil {
		if *c.Idle != 0 && *c.Idle != 1 {
			d.invalid("cpu idle", "%d is neither 0 nor 1", *c.Idle)
		}
		d.add("cpu idle", "cpu", "cpu", func(l *limit) {
			l.res.CPUIdle = c.Idle
			l.files = []string{"cpu.idle"}
		})
	}
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (d *demand) bandwidth(c *specs.LinuxCPU) {
	quota, period := value(c.Quota), value(c.Period)
	if quota == 0 && period == 0 && c.Burst == nil {
		return
	}
	switch {
	case quota < -1:
		d.invalid(CPUQuota, "%d µs is negative (-1 is unlimited)", quota)
	case quota > 0 && quota < minQuota || quota > maxQuota:
		d.invalid(CPUQuota, "%d µs is not between %d and %d", quota, minQuota, int64(maxQuota))
	case period != 0 && (period < minPeriod || period > maxPeriod):
		d.invalid("cpu period", "%d µs is not between %d and %d", period, minPeriod, maxPeriod)
	case c.Burst != nil && quota > 0 && *c.Burst > uint64(quota):
		d.invalid("cpu burst", "%d µs is more than the quota of %d", *c.Burst, quota)
	}
	name := CPUQuota
	switch {
	case quota == 0 && period == 0:
		name = "cpu burst"
	case quota == 0:
		name = "cpu period"
	}
	d.add(name, "cpu", "cpu", func(l *limit) {
		l.res = cgroups.Resources{CpuQuota: quota, CpuPeriod: period, CpuBurst: c.Burst}
		file, burst := "cpu.cfs_quota_us", "cpu.cfs_burst_us"
		if l.v2 {
			file, burst = "cpu.max", "cpu.max.burst"
		}
		l.files, l.hint = []string{file}, "a kernel with CONFIG_CFS_BANDWIDTH"
		if c.Burst != nil {
			l.files = append(l.files, burst)
		}
	})
}

func (d *demand) realtime(c *specs.LinuxCPU) {
	runtime, period := value(c.RealtimeRuntime), value(c.RealtimePeriod)
	if runtime == 0 && period == 0 {
		return
	}
	if runtime < -1 {
		d.invalid("cpu real-time runtime", "%d µs is negative", runtime)
	}
	if period > maxPeriod {
		d.invalid("cpu real-time period", "%d µs is more than %d", period, maxPeriod)
	}
	d.add("cpu real-time limit", "cpu", "", func(l *limit) {
		l.res = cgroups.Resources{CpuRtRuntime: runtime, CpuRtPeriod: period}
		l.files = []string{"cpu.rt_runtime_us", "cpu.rt_period_us"}
		l.hint = "a kernel with CONFIG_RT_GROUP_SCHED"
	})
}

// cpuset converts the lists of processors and memory nodes. That they exist
// is checked in Create and Set: v2 would accept a list of processors that are
// not there and use all of the parent's instead.
func (d *demand) cpuset(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	set := func(name, list string, put func(l *limit, list string)) {
		if list == "" {
			return
		}
		numbers, err := parseList(list)
		if err != nil {
			d.invalid(name, "%v", err)
			return
		}
		d.add(name, "cpuset", "cpuset", func(l *limit) { put(l, formatList(numbers)) })
	}
	set(CpusetCPUs, c.Cpus, func(l *limit, list string) { l.res.CpusetCpus = list })
	set(CpusetMems, c.Mems, func(l *limit, list string) { l.res.CpusetMems = list })
}

// pids converts the process limit. 0 becomes 1, as in the library: the first
// process must be able to live.
func (d *demand) pids(p *specs.LinuxPids) {
	if p == nil || p.Limit == nil {
		return
	}
	if *p.Limit < -1 {
		d.invalid(PidsLimit, "%d is negative (-1 is unlimited)", *p.Limit)
	}
	d.add(PidsLimit, "pids", "pids", func(l *limit) {
		n := *p.Limit
		l.res.PidsLimit = &n
	})
}
