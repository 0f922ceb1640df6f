package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pidfd"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// event is one line of events. The names are those that containerd reads.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data *stats `json:"data,omitempty"`
}

type stats struct {
	CPU     cpuStats             `json:"cpu"`
	Memory  memoryStats          `json:"memory"`
	Pids    pidsStats            `json:"pids"`
	Blkio   blkioStats           `json:"blkio"`
	Hugetlb map[string]hugeStats `json:"hugetlb"`
}

type cpuStats struct {
	Usage struct {
		Total  uint64   `json:"total"` // nanoseconds, as all of usage
		Percpu []uint64 `json:"percpu,omitempty"`
		Kernel uint64   `json:"kernel"`
		User   uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods"`
		ThrottledPeriods uint64 `json:"throttledPeriods"`
		ThrottledTime    uint64 `json:"throttledTime"` // nanoseconds
	} `json:"throttling"`
}

// memoryEntry is in bytes, Failcnt counts how often the limit was hit.
type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type memoryStats struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     memoryEntry       `json:"usage"`
	Swap      memoryEntry       `json:"swap"`
	Kernel    memoryEntry       `json:"kernel"`
	KernelTCP memoryEntry       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
}

type pidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"`
}

type hugeStats struct {
	Usage   uint64 `json:"usage"`
	Max     uint64 `json:"max"`
	Failcnt uint64 `json:"failcnt"`
}

type blkioEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

type blkioStats struct {
	ServiceBytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []blkioEntry `json:"ioServicedRecursive,omitempty"`
	Queued       []blkioEntry `json:"ioQueueRecursive,omitempty"`
	ServiceTime  []blkioEntry `json:"ioServiceTimeRecursive,omitempty"`
	WaitTime     []blkioEntry `json:"ioWaitTimeRecursive,omitempty"`
	Merged       []blkioEntry `json:"ioMergedRecursive,omitempty"`
	Time         []blkioEntry `json:"ioTimeRecursive,omitempty"`
	Sectors      []blkioEntry `json:"sectorsRecursive,omitempty"`
}

func convertStats(s *cgroups.Stats) *stats {
	out := &stats{Hugetlb: map[string]hugeStats{}}
	u, t := s.CpuStats.CpuUsage, s.CpuStats.ThrottlingData
	out.CPU.Usage.Total, out.CPU.Usage.Percpu = u.TotalUsage, u.PercpuUsage
	out.CPU.Usage.Kernel, out.CPU.Usage.User = u.UsageInKernelmode, u.UsageInUsermode
	out.CPU.Throttling.Periods = t.Periods
	out.CPU.Throttling.ThrottledPeriods, out.CPU.Throttling.ThrottledTime = t.ThrottledPeriods, t.ThrottledTime
	m := s.MemoryStats
	out.Memory = memoryStats{Cache: m.Cache, Usage: memory(m.Usage), Swap: memory(m.SwapUsage),
		Kernel: memory(m.KernelUsage), KernelTCP: memory(m.KernelTCPUsage), Raw: m.Stats}
	out.Pids = pidsStats{Current: s.PidsStats.Current, Limit: s.PidsStats.Limit}
	for size, h := range s.HugetlbStats {
		out.Hugetlb[size] = hugeStats{Usage: h.Usage, Max: h.MaxUsage, Failcnt: h.Failcnt}
	}
	b := s.BlkioStats
	out.Blkio = blkioStats{
		ServiceBytes: blkio(b.IoServiceBytesRecursive), Serviced: blkio(b.IoServicedRecursive),
		Queued: blkio(b.IoQueuedRecursive), ServiceTime: blkio(b.IoServiceTimeRecursive),
		WaitTime: blkio(b.IoWaitTimeRecursive), Merged: blkio(b.IoMergedRecursive),
		Time: blkio(b.IoTimeRecursive), Sectors: blkio(b.SectorsRecursive),
	}
	return out
}

func memory(d cgroups.MemoryData) memoryEntry {
	return memoryEntry{Limit: d.Limit, Usage: d.Usage, Max: d.MaxUsage, Failcnt: d.Failcnt}
}

func blkio(list []cgroups.BlkioStatEntry) []blkioEntry {
	var out []blkioEntry
	for _, e := range list {
		out = append(out, blkioEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
	}
	return out
}

func runEvents(c *command) (int, error) {
	interval, err := parseInterval(c.flags.last("interval", "5s"))
	if err != nil {
		return 0, err
	}
	b, err := c.store.load(c.id())
	if err != nil {
		return 0, err
	}
	defer b.Close()
	st, err := b.status()
	if err != nil {
		return 0, err
	}
	if st == specs.StateStopped || st == specs.StateCreating {
		return 0, fmt.Errorf("container %s is not running", b.ID)
	}
	m, err := b.cgroup()
	if err != nil {
		return 0, err
	}
	if m == nil {
		return 0, fmt.Errorf("container %s has no cgroup, there are no figures", b.ID)
	}
	if c.flags.on("stats") {
		return 0, c.printStats(m)
	}
	return 0, c.follow(b, m, interval)
}

// parseInterval takes Go's durations and, as a plain number, seconds.
func parseInterval(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if n, err2 := strconv.Atoi(s); err2 == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d <= 0 {
		return 0, usagef("events --interval: %q is no duration above zero, such as 5s", s)
	}
	return d, nil
}

func (c *command) printStats(m *cgroup.Manager) error {
	s, err := m.Stats()
	if err != nil {
		return err
	}
	return json.NewEncoder(c.stdout).Encode(event{Type: "stats", ID: c.id(), Data: convertStats(s.Detail)})
}

// oomCheck is how often the count of processes that the kernel killed for lack
// of memory is read. Its notifications differ between the cgroup versions and
// may come before the count; the count is the same everywhere.
const oomCheck = time.Second

// follow prints figures and kills until the container ends.
func (c *command) follow(b *box, m *cgroup.Manager, interval time.Duration) error {
	process, err := pidfd.Open(b.made.Pid)
	if err != nil || b.made.Status() == workload.Exited {
		return nil // it has ended meanwhile
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- pidfd.Wait(ctx, process) }()

	kills, err := m.OOMKills()
	if err != nil {
		return err
	}
	oom := func() error {
		n, err := m.OOMKills()
		if err != nil || n <= kills {
			return ignoreNotExist(err)
		}
		kills = n
		return json.NewEncoder(c.stdout).Encode(event{Type: "oom", ID: c.id()})
	}
	figures, check := time.NewTicker(interval), time.NewTicker(min(interval, oomCheck))
	defer figures.Stop()
	defer check.Stop()
	for {
		var err error
		select {
		case err = <-ended:
			if err2 := oom(); err == nil {
				err = err2
			}
			return err
		case <-figures.C:
			err = ignoreNotExist(c.printStats(m))
		case <-check.C:
			err = oom()
		}
		if err != nil {
			return err
		}
	}
}
