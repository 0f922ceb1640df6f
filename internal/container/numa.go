package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// The kernel's largest numbers of processors and of memory nodes
// (CONFIG_NR_CPUS, MAX_NUMNODES on x86-64).
const (
	maxCPUs  = 8192
	maxNodes = 1024
)

// planAffinity lets the process pid run on the processors in list, in the
// format of cpuset(7), or on all that its cgroup allows: what the caller was
// bound to is not the container's affair.
func planAffinity(g *launch.Program, pid launch.Slot, list string) error {
	if list == "" {
		all := make([]byte, maxCPUs/8)
		for i := range all {
			all[i] = 0xff
		}
		// EINVAL: it may run nowhere, which joining the cgroup has decided already.
		g.Do(launch.Host, launch.SchedSetaffinity, "on every processor of its cgroup, wherever its maker runs", launch.Use(pid),
			launch.Int(len(all)), launch.Buf(all, "~0")).Tolerating(unix.EINVAL, unix.EPERM)
		return nil
	}
	mask, err := parseList(list, maxCPUs)
	if err != nil {
		return fmt.Errorf("execCPUAffinity: %w", err)
	}
	g.Do(launch.Host, launch.SchedSetaffinity, "final processor affinity", launch.Use(pid), launch.Int(len(mask)), launch.Buf(mask, "{"+list+"}"))
	return nil
}

// planInitialAffinity binds the calling child before it joins the cgroup.
func planInitialAffinity(g *launch.Program, a launch.Actor, list string) error {
	mask, err := parseList(list, maxCPUs)
	if err != nil {
		return fmt.Errorf("execCPUAffinity: %w", err)
	}
	g.Do(a, launch.SchedSetaffinity, "initial processor affinity", launch.Int(0), launch.Int(len(mask)), launch.Buf(mask, "{"+list+"}"))
	return nil
}

// parseList reads the list format of cpuset(7), such as "0-2,7", into a bit
// mask of native words. Every number must be below limit.
func parseList(list string, limit int) ([]byte, error) {
	words := make([]uint64, (limit+63)/64)
	for _, part := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no list of numbers and ranges", list)
		}
		b, err := strconv.ParseUint(last, 10, 64)
		if err != nil || b < a {
			return nil, fmt.Errorf("%q is no list of numbers and ranges", list)
		}
		if b >= uint64(limit) {
			return nil, fmt.Errorf("%d is not below %d", b, limit)
		}
		for n := a; n <= b; n++ {
			words[n/64] |= 1 << (n % 64)
		}
	}
	var mask []byte
	for _, w := range words {
		mask = binary.NativeEndian.AppendUint64(mask, w)
	}
	return mask, nil
}

// memoryModes and memoryFlags are those of set_mempolicy(2), linux/mempolicy.h.
var memoryModes = map[specs.MemoryPolicyModeType]int{
	specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3,
	specs.MpolLocal: 4, specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
}

var memoryFlags = map[specs.MemoryPolicyFlagType]int{
	specs.MpolFStaticNodes: 1 << 15, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFNumaBalancing: 1 << 13,
}

// MemoryModes and MemoryFlags name what a memory policy may have, in order.
func MemoryModes() []string { return sortedNames(memoryModes) }
func MemoryFlags() []string { return sortedNames(memoryFlags) }

func sortedNames[K ~string, V any](table map[K]V) (names []string) {
	for name := range table {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// planMemoryPolicy sets on which memory nodes the process's memory lies
// (set_mempolicy(2)). Its children inherit it, also across execve.
func planMemoryPolicy(g *launch.Program, m *specs.LinuxMemoryPolicy) error {
	if m == nil {
		return nil
	}
	mode, ok := memoryModes[m.Mode]
	if !ok {
		return fmt.Errorf("linux.memoryPolicy.mode: invalid memory policy mode %q", m.Mode)
	}
	text := string(m.Mode)
	for _, f := range m.Flags {
		bit, ok := memoryFlags[f]
		if !ok {
			return fmt.Errorf("linux.memoryPolicy.flags: invalid memory policy flag %q", f)
		}
		mode |= bit
		text += "|" + string(f)
	}
	var mask []byte
	if m.Nodes != "" {
		var err error
		if mask, err = parseList(m.Nodes, maxNodes); err != nil {
			return fmt.Errorf("linux.memoryPolicy.nodes: invalid memory policy nodes: %w", err)
		}
	}
	none := m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal
	switch n := ones(mask); {
	case none && n > 0:
		return fmt.Errorf("linux.memoryPolicy: %s mode requires 0 nodes but got %d", m.Mode, n)
	case !none && n == 0 && m.Mode != specs.MpolPreferred:
		return errors.New("linux.memoryPolicy.nodes: " + string(m.Mode) + " needs nodes")
	}
	// The kernel takes the mask to be one bit shorter than it is told.
	size := 0
	if mask != nil {
		size = 8*len(mask) + 1
	}
	g.Do(launch.Init, launch.SetMempolicy, "memory policy", launch.Flag(uintptr(mode), text), launch.Buf(mask, orNull(m.Nodes)), launch.Int(size))
	return nil
}

func ones(mask []byte) int {
	n := 0
	for _, b := range mask {
		n += bits.OnesCount8(b)
	}
	return n
}

func orNull(list string) string {
	if list == "" {
		return "NULL"
	}
	return "{" + list + "}"
}
