package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// Unlimited is what a limit in Stats is when there is none.
const Unlimited uint64 = math.MaxUint64

// v1Unlimited is above any limit on v1, where "none" is the largest multiple
// of the page size that fits.
const v1Unlimited = 1 << 62

// Stats are the figures of a cgroup, children included. What the machine
// does not count is zero.
type Stats struct {
	Memory MemoryStats
	CPU    CPUStats
	Pids   PidsStats
	IO     IOStats
	// OOMKills counts the processes that the kernel killed for lack of memory.
	OOMKills uint64
	// Detail are all figures that the library reads, in its form.
	Detail *cgroups.Stats
}

// MemoryStats are in bytes.
type MemoryStats struct {
	Current, Peak, Limit uint64
	// Swap is swap alone; SwapLimit is memory and swap together, as in the
	// runtime spec.
	Swap, SwapLimit uint64
	// Cache is page cache, Inactive the part of it that goes first: Current
	// less Inactive is what docker stats shows.
	Cache, Inactive uint64
}

// CPUStats hold processor time.
type CPUStats struct {
	Usage, User, System time.Duration
	// Of Periods of a quota, Throttled were cut short, ThrottledTime in all.
	Periods, Throttled uint64
	ThrottledTime      time.Duration
}

// PidsStats count processes and threads.
type PidsStats struct{ Current, Limit uint64 }

// IOStats sum over block devices.
type IOStats struct{ ReadBytes, WriteBytes, ReadOps, WriteOps uint64 }

// Stats reads the figures. It fails with os.ErrNotExist when the cgroup is
// gone.
func (m *Manager) Stats() (Stats, error) {
	detail, err := m.detail()
	if err != nil {
		return Stats{}, fmt.Errorf("read statistics of cgroup %s: %w", m.path, err)
	}
	kills, err := m.OOMKills()
	if err != nil {
		return Stats{}, err
	}
	s := Stats{
		Memory:   memoryStats(detail),
		CPU:      cpuStats(detail),
		Pids:     PidsStats{detail.PidsStats.Current, unlimitedZero(detail.PidsStats.Limit)},
		OOMKills: kills,
		Detail:   detail,
	}
	s.IO = ioStats(detail)
	return s, nil
}

// detail merges what the two generations know.
func (m *Manager) detail() (*cgroups.Stats, error) {
	if !m.Exists() {
		return nil, os.ErrNotExist
	}
	if len(m.v1) == 0 {
		lib, err := m.v2Library()
		if err != nil {
			return nil, err
		}
		return lib.GetStats()
	}
	lib, err := m.v1Library()
	if err != nil {
		return nil, err
	}
	stats, err := lib.GetStats()
	if err != nil {
		return nil, err
	}
	if dir := m.dirOn("blkio"); dir != "" {
		if err := throttleStats(dir, stats); err != nil {
			return nil, err
		}
	}
	return stats, nil
}

// throttleStats reads the figures that every device has. The library takes
// those of bfq when its files are there, and they stay zero for devices with
// another scheduler.
func throttleStats(dir string, stats *cgroups.Stats) error {
	for file, list := range map[string]*[]cgroups.BlkioStatEntry{
		"blkio.throttle.io_service_bytes_recursive": &stats.BlkioStats.IoServiceBytesRecursive,
		"blkio.throttle.io_serviced_recursive":      &stats.BlkioStats.IoServicedRecursive,
	} {
		text, err := readFile(dir, file)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			return err
		}
		if entries := parseBlkio(text); len(entries) > 0 {
			*list = entries
		}
	}
	return nil
}

// parseBlkio reads lines "major:minor operation number"; others, such as
// totals, are passed over.
func parseBlkio(text string) []cgroups.BlkioStatEntry {
	var list []cgroups.BlkioStatEntry
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		major, minor, ok := strings.Cut(f[0], ":")
		maj, err1 := strconv.ParseUint(major, 10, 32)
		mnr, err2 := strconv.ParseUint(minor, 10, 32)
		n, err3 := strconv.ParseUint(f[2], 10, 64)
		if ok && errors.Join(err1, err2, err3) == nil {
			list = append(list, cgroups.BlkioStatEntry{Major: maj, Minor: mnr, Op: f[1], Value: n})
		}
	}
	return list
}

func memoryStats(d *cgroups.Stats) MemoryStats {
	mem := d.MemoryStats
	s := MemoryStats{
		Current: mem.Usage.Usage, Peak: mem.Usage.MaxUsage, Limit: unlimitedV1(mem.Usage.Limit),
		Swap: mem.SwapOnlyUsage.Usage, SwapLimit: unlimitedV1(mem.SwapUsage.Limit), Cache: mem.Cache,
		Inactive: mem.Stats["inactive_file"],
	}
	if n, ok := mem.Stats["total_inactive_file"]; ok { // v1, children included
		s.Inactive = n
	}
	return s
}

func unlimitedV1(n uint64) uint64 {
	if n >= v1Unlimited || n == 0 {
		return Unlimited
	}
	return n
}

func unlimitedZero(n uint64) uint64 {
	if n == 0 {
		return Unlimited
	}
	return n
}

func cpuStats(d *cgroups.Stats) CPUStats {
	c, t := d.CpuStats.CpuUsage, d.CpuStats.ThrottlingData
	return CPUStats{
		Usage: nanoseconds(c.TotalUsage), User: nanoseconds(c.UsageInUsermode), System: nanoseconds(c.UsageInKernelmode),
		Periods: t.Periods, Throttled: t.ThrottledPeriods, ThrottledTime: nanoseconds(t.ThrottledTime),
	}
}

func nanoseconds(n uint64) time.Duration { return time.Duration(min(n, math.MaxInt64)) }

func ioStats(d *cgroups.Stats) IOStats {
	var s IOStats
	sum := func(list []cgroups.BlkioStatEntry, read, write *uint64) {
		for _, e := range list {
			switch e.Op {
			case "Read":
				*read += e.Value
			case "Write":
				*write += e.Value
			}
		}
	}
	sum(d.BlkioStats.IoServiceBytesRecursive, &s.ReadBytes, &s.WriteBytes)
	sum(d.BlkioStats.IoServicedRecursive, &s.ReadOps, &s.WriteOps)
	return s
}

// readKeyed reads one number of a file of "key value" lines; a file or key
// that is not there reads as 0.
func readKeyed(dir, file, key string) (uint64, error) {
	return readKeyedAt(at.CWD, dir, file, key)
}

func readKeyedAt(parent int, dir, file, key string) (uint64, error) {
	text, err := readFileAt(parent, dir, file)
	if err != nil {
		return 0, ignoreGone(err)
	}
	v, ok := keyed(text, key)
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s/%s: %w", dir, file, err)
	}
	return n, nil
}

// readNumber reads a file that holds one number; "max" is Unlimited.
func readNumber(dir, file string) (uint64, error) {
	text, err := readFile(dir, file)
	if err != nil {
		return 0, err
	}
	text = strings.TrimSpace(text)
	if text == "max" {
		return Unlimited, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s/%s: %w", dir, file, err)
	}
	return n, nil
}
