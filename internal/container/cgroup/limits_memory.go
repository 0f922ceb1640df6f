package cgroup

import (
	"math"
	"strconv"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// memory converts memory limits, all in bytes.
//
// A swap limit counts memory and swap together, as in the runtime spec and in
// Docker; v2 has it as swap alone, so it needs to know the memory limit. A
// machine that does not account swap cannot enforce one: Docker drops the
// limit with a warning, here it is an error unless it is -1. Probe tells
// beforehand.
func (d *demand) memory(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	total := d.bytes(MemoryLimit, m.Limit)
	swap := d.bytes(SwapLimit, m.Swap)
	reservation := d.bytes(MemoryReservation, m.Reservation)
	switch {
	case swap > 0 && total == 0:
		d.invalid(SwapLimit, "needs a memory limit")
	case swap > 0 && total < 0:
		d.invalid(SwapLimit, "%d bytes, but memory alone is unlimited", swap)
	case swap > 0 && swap < total:
		d.invalid(SwapLimit, "%d bytes of memory and swap, less than the memory limit of %d", swap, total)
	case reservation > 0 && total > 0 && reservation > total:
		d.invalid(MemoryReservation, "%d bytes, more than the memory limit of %d", reservation, total)
	}
	if total != 0 || swap != 0 {
		d.memoryAndSwap(total, swap, m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate)
	}
	if reservation != 0 {
		d.add(MemoryReservation, "memory", "memory", func(l *limit) {
			l.res.MemoryReservation = reservation
		})
	}
	d.kernelMemory(m, total)
	d.reclaim(m)
}

func (d *demand) memoryAndSwap(total, swap int64, check bool) {
	name := MemoryLimit
	if total == 0 {
		name = SwapLimit
	}
	d.add(name, "memory", "memory", func(l *limit) {
		l.res = cgroups.Resources{Memory: total, MemorySwap: swap, MemoryCheckBeforeUpdate: check}
		file := "memory.memsw.limit_in_bytes"
		if l.v2 {
			file = "memory.swap.max"
		}
		if swap > 0 {
			l.files, l.absent = append(l.files, file), d.say(SwapLimit)
			l.hint = "swap is not accounted (boot with swapaccount=1, or a kernel with CONFIG_SWAP), so memory and swap cannot be limited together"
		}
		if swap == -1 {
			// Nothing to lift where nothing is accounted; decided when the
			// directory can be looked at.
			l.optional = file
		}
	})
}

// bytes checks a limit in bytes: -1, 0 for unset, or positive.
func (d *demand) bytes(name string, v *int64) int64 {
	if v == nil {
		return 0
	}
	if *v < -1 {
		d.invalid(name, "%d bytes is negative (-1 is unlimited)", *v)
		return 0
	}
	return *v
}

// kernelMemory deals with limits that kernels no longer have. Kernel memory
// counts towards the memory limit, so a limit on it that is no smaller is in
// force already.
func (d *demand) kernelMemory(m *specs.LinuxMemory, total int64) {
	kernel := d.bytes("kernel memory limit", m.Kernel) //nolint:staticcheck // deprecated, yet still asked for
	if kernel > 0 && (total <= 0 || kernel < total) {
		d.fail(&MissingError{"kernel memory limit", "kernel memory",
			"Linux has none since 5.16; kernel memory counts towards the memory limit"})
	}
	tcp := d.bytes("kernel TCP memory limit", m.KernelTCP)
	switch _, onV2, ok := d.place("memory", "memory"); {
	case tcp == 0:
	case ok && !onV2:
		d.add("kernel TCP memory limit", "memory", "", func(l *limit) {
			l.raw = []setting{{"memory.kmem.tcp.limit_in_bytes", strconv.FormatInt(tcp, 10)}}
			l.files = []string{"memory.kmem.tcp.limit_in_bytes"}
		})
	case tcp > 0 && (total <= 0 || tcp < total):
		d.fail(&MissingError{"kernel TCP memory limit", "kernel TCP memory",
			"cgroup v2 has none; socket buffers count towards the memory limit"})
	}
}

// reclaim deals with what only v1 has. UseHierarchy asks for what every
// kernel since 5.11 always does.
func (d *demand) reclaim(m *specs.LinuxMemory) {
	// The spec's type is unsigned, but -1 is what some callers write for "unset".
	if s := m.Swappiness; s != nil && *s != math.MaxUint64 {
		if *s > 100 {
			d.invalid("memory swappiness", "%d is not between 0 and 100", *s)
		}
		d.add("memory swappiness", "memory", "", func(l *limit) {
			l.res.MemorySwappiness = s
			l.files = []string{"memory.swappiness"}
		})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		d.add("disabling the OOM killer", "memory", "", func(l *limit) {
			l.res.OomKillDisable = true
			l.files = []string{"memory.oom_control"}
		})
	}
}
