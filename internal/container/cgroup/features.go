package cgroup

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Features says what limits this machine can enforce, for callers that choose
// a default instead of asking for a certain limit.
type Features struct {
	Mode        Mode
	Controllers []string // v2 names: "io" stands for v1's blkio too
	// Swap says that swap is accounted, so that memory and swap together can
	// be limited.
	Swap bool
}

// Probe finds out. It changes nothing.
func Probe(o Options) (Features, error) {
	lay := o.Layout
	if lay == nil {
		var err error
		if lay, err = Detect(); err != nil {
			return Features{}, err
		}
	}
	f := Features{Mode: lay.Mode}
	for _, c := range []string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma", "devices", "freezer"} {
		v1 := c
		if c == "io" {
			v1 = "blkio"
		}
		_, onV1 := lay.onV1(v1)
		core := lay.V2 != "" && (c == "devices" || c == "freezer")
		if onV1 || lay.onV2(c) || core {
			f.Controllers = append(f.Controllers, c)
		}
	}
	if h, ok := lay.onV1("memory"); ok {
		f.Swap = exists(h.Mount, "memory.memsw.limit_in_bytes")
		return f, nil
	}
	if !slices.Contains(f.Controllers, "memory") {
		return f, nil
	}
	var err error
	f.Swap, err = swapAccounted(lay.V2)
	return f, err
}

// Memory is a limit of that many bytes, and of as much swap again where swap is
// accounted: without one, what is beyond the limit of memory is pushed out to swap, all
// that the host has. Memory and swap together, which Swap counts as the runtime spec
// has it (config-linux.md, "Memory"), are not limited where twice the bytes are beyond
// an int64.
func (f Features) Memory(bytes int64) *specs.LinuxMemory {
	m := &specs.LinuxMemory{Limit: &bytes}
	if f.Swap && bytes <= math.MaxInt64/2 {
		both := 2 * bytes
		m.Swap = &both
	}
	return m
}

// Helper limits a helper process of our own to bytes of memory, as Memory does, and a
// number of tasks, each where the machine has the controller.
func (f Features) Helper(memory, tasks int64) *specs.LinuxResources {
	r := &specs.LinuxResources{}
	if slices.Contains(f.Controllers, "memory") {
		r.Memory = f.Memory(memory)
	}
	if slices.Contains(f.Controllers, "pids") {
		r.Pids = &specs.LinuxPids{Limit: &tasks}
	}
	return r
}

// swapAccounted finds out for v2, whose root cgroup has no memory.swap.max.
// Any other cgroup with the memory controller tells; without one the kernel's
// command line does, and that it supports swap at all.
func swapAccounted(mount string) (bool, error) {
	entries, err := os.ReadDir(mount)
	if err != nil {
		return false, fmt.Errorf("find out about swap accounting: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && exists(mount+"/"+e.Name(), "memory.max") {
			return exists(mount+"/"+e.Name(), "memory.swap.max"), nil
		}
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return false, fmt.Errorf("find out about swap accounting: %w", err)
	}
	off := slices.Contains(strings.Fields(string(line)), "swapaccount=0")
	return !off && exists("/proc", "swaps"), nil
}
