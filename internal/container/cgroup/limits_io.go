package cgroup

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	minIOWeight = 10
	maxIOWeight = 1000
	// maxDevices bounds each list of devices; a machine has few.
	maxDevices = 256
)

// blockIO converts weights and throttles of block devices.
//
// Weights are shares, not caps, and only the bfq scheduler or io.cost looks at
// them; the file being there does not mean that a device is scheduled so.
func (d *demand) blockIO(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	if value(b.LeafWeight) != 0 {
		d.fail(&MissingError{"io leaf weight", "cfq", "that scheduler left Linux in 5.0"})
	}
	if w := value(b.Weight); w != 0 {
		d.weight(w)
	}
	d.deviceWeights(b.WeightDevice)
	d.throttle(IOReadRate, "read_bps_device", "rbps", b.ThrottleReadBpsDevice)
	d.throttle(IOWriteRate, "write_bps_device", "wbps", b.ThrottleWriteBpsDevice)
	d.throttle(IOReadOpsRate, "read_iops_device", "riops", b.ThrottleReadIOPSDevice)
	d.throttle(IOWriteOpsRate, "write_iops_device", "wiops", b.ThrottleWriteIOPSDevice)
}

const bfqHint = "a kernel with the bfq scheduler (modprobe bfq)"

func (d *demand) weight(w uint16) {
	d.checkWeight(w)
	d.add(IOWeight, "blkio", "io", func(l *limit) {
		l.res.BlkioWeight = w
		l.files, l.hint = []string{"blkio.weight|blkio.bfq.weight"}, bfqHint
		if l.v2 {
			l.files = []string{"io.bfq.weight|io.weight"}
		}
	})
	d.noteScheduler()
}

func (d *demand) checkWeight(w uint16) {
	if w < minIOWeight || w > maxIOWeight {
		d.invalid(IOWeight, "%d is not between %d and %d", w, minIOWeight, maxIOWeight)
	}
}

func (d *demand) deviceWeights(list []specs.LinuxWeightDevice) {
	if len(list) == 0 {
		return
	}
	if len(list) > maxDevices {
		d.invalid(IOWeight, "%d devices, more than %d", len(list), maxDevices)
		return
	}
	d.add("io device weight", "blkio", "io", func(l *limit) {
		l.files, l.hint = []string{"blkio.weight_device|blkio.bfq.weight_device"}, bfqHint
		if l.v2 {
			l.files = []string{"io.bfq.weight"}
		}
		for _, w := range list {
			if value(w.LeafWeight) != 0 {
				d.fail(&MissingError{"io leaf weight", "cfq", "that scheduler left Linux in 5.0"})
			}
			d.checkWeight(value(w.Weight))
			d.checkBlockDevice("io device weight", w.Major, w.Minor)
			l.res.BlkioWeightDevice = append(l.res.BlkioWeightDevice,
				cgroups.NewWeightDevice(w.Major, w.Minor, value(w.Weight), 0))
		}
	})
	d.noteScheduler()
}

// noteScheduler notes when weights have no effect at present.
func (d *demand) noteScheduler() {
	if !weightsMatter("/sys/block", d.lay.V2) {
		d.note(IOWeight, "no block device here is scheduled by bfq or controlled by io.cost, so the weight has no effect")
	}
}

func weightsMatter(block, v2 string) bool {
	files, err := filepath.Glob(block + "/*/queue/scheduler")
	if err != nil {
		return false
	}
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), "[bfq]") {
			return true
		}
	}
	if v2 == "" {
		return false
	}
	qos, err := readFile(v2, "io.cost.qos")
	return err == nil && strings.Contains(qos, "enable=1")
}

// throttle converts a list of rates per second. A rate of 0 lifts the limit.
// v1 does not charge buffered writes to their writer: a write rate there holds
// for direct and synchronous writes.
func (d *demand) throttle(name, v1File, v2Key string, list []specs.LinuxThrottleDevice) {
	if len(list) == 0 {
		return
	}
	if len(list) > maxDevices {
		d.invalid(name, "%d devices, more than %d", len(list), maxDevices)
		return
	}
	d.add(name, "blkio", "io", func(l *limit) {
		file := "blkio.throttle." + v1File
		if l.v2 {
			file = "io.max"
		}
		l.files, l.hint = []string{file}, "a kernel with CONFIG_BLK_DEV_THROTTLING"
		for _, t := range list {
			d.checkBlockDevice(name, t.Major, t.Minor)
			l.throttle(file, v2Key, t)
		}
		if !l.v2 && strings.HasPrefix(v2Key, "w") {
			d.note(name, "cgroup v1 does not limit buffered writes, only direct and synchronous ones")
		}
	})
}

func (l *limit) throttle(file, key string, t specs.LinuxThrottleDevice) {
	td := cgroups.NewThrottleDevice(t.Major, t.Minor, t.Rate)
	switch {
	case l.v2 && t.Rate == 0:
		l.raw = append(l.raw, setting{file, fmt.Sprintf("%d:%d %s=max", t.Major, t.Minor, key)})
	case key == "rbps":
		l.res.BlkioThrottleReadBpsDevice = append(l.res.BlkioThrottleReadBpsDevice, td)
	case key == "wbps":
		l.res.BlkioThrottleWriteBpsDevice = append(l.res.BlkioThrottleWriteBpsDevice, td)
	case key == "riops":
		l.res.BlkioThrottleReadIOPSDevice = append(l.res.BlkioThrottleReadIOPSDevice, td)
	case key == "wiops":
		l.res.BlkioThrottleWriteIOPSDevice = append(l.res.BlkioThrottleWriteIOPSDevice, td)
	}
}

// checkBlockDevice checks numbers, 12 and 20 bits in the kernel. Whether the
// device exists is the kernel's to say, when the limit is written.
func (d *demand) checkBlockDevice(name string, major, minor int64) {
	if major < 0 || major > 1<<12-1 || minor < 0 || minor > 1<<20-1 {
		d.invalid(name, "%d:%d is not the number of a device", major, minor)
	}
}

// hugepages converts limits per page size.
func (d *demand) hugepages(list []specs.LinuxHugepageLimit) {
	if len(list) == 0 {
		return
	}
	sizes := hugePageSizes()
	d.add("huge page limit", "hugetlb", "hugetlb", func(l *limit) {
		for _, h := range list {
			if !slices.Contains(sizes, h.Pagesize) {
				d.invalid("huge page limit", "page size %q is not one of this machine's %s", h.Pagesize, strings.Join(sizes, ", "))
				return
			}
			l.res.HugetlbLimit = append(l.res.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: h.Pagesize, Limit: min(h.Limit, math.MaxInt64)})
		}
	})
}

// hugePageSizes returns this machine's, such as "2MB".
func hugePageSizes() []string { return cgroups.HugePageSizes() }
