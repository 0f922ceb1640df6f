package runtimespec

import (
	"fmt"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestUnified: a raw cgroup setting is passed on, not dropped.
func TestUnified(t *testing.T) {
	kv := workload.UnifiedKV{Key: "memory.high", Value: "1000000"}
	r, err := Resources(workload.Resources{Unified: []workload.UnifiedKV{kv}})
	if err != nil || r.Unified["memory.high"] != "1000000" {
		t.Errorf("got %v, %v", r, err)
	}
	_, err = Resources(workload.Resources{Unified: []workload.UnifiedKV{kv, kv}})
	if err == nil || !strings.Contains(err.Error(), "given twice") {
		t.Errorf("got %v, want a setting that is given twice refused", err)
	}
}

// TestLimitsNameTheirFlags asks for each limit where no controller is to be had,
// where the value cannot be, and where the kernel does less than was asked.
func TestLimitsNameTheirFlags(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	const disk = "/dev/disk"
	bare := &cgroup.Layout{Mode: cgroup.ModeV2, V2: "/nowhere"}
	v1 := &cgroup.Layout{Mode: cgroup.ModeV1, V1: []cgroup.Hierarchy{{Mount: "/nowhere", Controllers: []string{"memory", "cpu", "blkio", "cpuset"}}}}
	number := specs.LinuxBlockIODevice{Major: 8}
	rate := []specs.LinuxThrottleDevice{{LinuxBlockIODevice: number, Rate: 7}}
	for _, tt := range []struct {
		asked workload.Resources
		io    *specs.LinuxBlockIO // as blockIO makes it where the device exists
		lay   *cgroup.Layout
		want  []string // the flag first
	}{
		{workload.Resources{Memory: n(8 << 20)}, nil, bare, []string{"--memory 8388608: ", "memory controller"}},
		{workload.Resources{MemoryReservation: n(8 << 20)}, nil, bare, []string{"--memory-reservation 8388608: ", "memory controller"}},
		{workload.Resources{Memory: n(2 << 20), MemorySwap: n(1 << 20)}, nil, v1, []string{"--memory-swap 1048576: ", "less than"}},
		{workload.Resources{CPUs: 1.5}, nil, bare, []string{"--cpus 1.5: ", "cpu controller"}},
		{workload.Resources{CPUWeight: 7}, nil, bare, []string{"--cpu-shares 7: ", "cpu controller"}},
		{workload.Resources{CpusetCPUs: "0-1"}, nil, bare, []string{`--cpuset-cpus "0-1": `, "cpuset controller"}},
		{workload.Resources{CpusetMems: "0"}, nil, bare, []string{`--cpuset-mems "0": `, "cpuset controller"}},
		{workload.Resources{CpusetCPUs: "1-0"}, nil, v1, []string{`--cpuset-cpus "1-0": `}},
		{workload.Resources{Pids: n(9)}, nil, bare, []string{"--pids-limit 9: ", "pids controller"}},
		{workload.Resources{IOWeight: 300}, nil, bare, []string{"--blkio-weight 300: ", "io controller"}},
		{workload.Resources{IOLimits: []workload.IOLimit{{Device: disk, ReadBPS: 7}}},
			&specs.LinuxBlockIO{ThrottleReadBpsDevice: rate}, bare, []string{`--device-read-bps "/dev/disk:7": `, "io controller"}},
		{workload.Resources{IOLimits: []workload.IOLimit{{Device: disk, ReadIOPS: 7}}},
			&specs.LinuxBlockIO{ThrottleReadIOPSDevice: rate}, bare, []string{`--device-read-iops "/dev/disk:7": `, "io controller"}},
		{workload.Resources{IOLimits: []workload.IOLimit{{Device: disk, WriteIOPS: 7}, {Device: "/dev/other", WriteIOPS: 8}}},
			&specs.LinuxBlockIO{ThrottleWriteIOPSDevice: rate}, bare, []string{`--device-write-iops "/dev/disk:7", --device-write-iops "/dev/other:8": `, "io controller"}},
		{workload.Resources{IOLimits: []workload.IOLimit{{Device: disk, WriteBPS: 7}}},
			&specs.LinuxBlockIO{ThrottleWriteBpsDevice: rate}, v1, []string{`--device-write-bps "/dev/disk:7": `, "buffered writes"}},
	} {
		asked := tt.asked
		asked.IOLimits = nil
		r, err := Resources(asked)
		if err != nil {
			t.Fatal(err)
		}
		if tt.io != nil {
			r.BlockIO = tt.io
		}
		_, err = cgroup.New("/x", r, cgroup.Options{Strict: true, Layout: tt.lay, Names: LimitNames(tt.asked)})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want[0]) {
			t.Errorf("got %v, want it to begin with %q", err, tt.want[0])
			continue
		}
		for _, w := range tt.want[1:] {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("got %v, want %q in it", err, w)
			}
		}
	}
	for device, want := range map[string]string{"/dev/null": "not a block device", "/dev/no/such": "no such file"} {
		_, err := Resources(workload.Resources{IOLimits: []workload.IOLimit{{Device: device, ReadBPS: 5, WriteIOPS: 6}}})
		flags := fmt.Sprintf("--device-read-bps %q, --device-write-iops %q: ", device+":5", device+":6")
		if err == nil || !strings.HasPrefix(err.Error(), flags) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s… %s", device, err, flags, want)
		}
	}
}
