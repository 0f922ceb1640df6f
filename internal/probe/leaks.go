package probe

import (
	"os"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

var unmask = []string{"--security-opt unmask", "--volume /proc:", "--volume /sys:", "--volume /:"}

// masked is a probe of files in which there must be nothing.
func masked(id, door, enables, references string, paths ...string) Probe {
	return Probe{
		ID: "leaks." + id, Door: door, Expected: "not there, or empty", Enables: enables, Consequence: report.Reads, Opens: unmask,
		Fix: "leave the paths below /proc and /sys masked", References: strings.Split(references, "; "),
		observe: func(p *prober) {
			p.everywhere(paths, func(f string) {
				list, err := os.ReadDir(f)
				if err != nil {
					p.read(f)
					return
				}
				first := ""
				if len(list) > 0 {
					first = list[0].Name()
				}
				p.add(readCall(f), first, nil)
			})
		},
		judge: judgeEverywhere(content),
	}
}

func leakProbes() []Probe {
	return []Probe{
		masked("interrupts", "counts of the host's interrupts", "seeing when keys are pressed and packets come", "moby GHSA-6fw5-f8r9-fgfm", "/proc/interrupts"),
		masked("keys", "the host's keys", "seeing whose keys the kernel holds", "keyrings(7)", "/proc/keys"),
		masked("timers", "the host's timers", "seeing the names of the host's processes", "proc(5)", "/proc/timer_list", "/proc/timer_stats"),
		masked("firmware", "the host's firmware tables", "seeing what machine it is, and its serial numbers", "sysfs(5)", "/sys/firmware"),
		masked("memory-image", "the host's memory", "reading the memory of the kernel and of every process", "proc_kcore(5)", "/proc/kcore"),
		masked("scheduler", "the host's scheduler", "seeing the names of the host's processes", "proc(5)", "/proc/sched_debug", "/proc/latency_stats"),
		masked("power", "the host's power meters", "recovering keys from the processor's use of power (CVE-2020-8694)", "CVE-2020-8694", "/sys/devices/virtual/powercap"),
		masked("thermal", "how hot the host's processors get", "seeing what others compute", "moby GHSA-6fw5-f8r9-fgfm", "/sys/devices/system/cpu/cpu0/thermal_throttle"),
		masked("hardware", "the host's hardware in /proc", "seeing what machine it is, and changing some of it", "proc(5)", "/proc/acpi", "/proc/asound", "/proc/scsi"),
		{
			ID: "leaks.memory-size", Door: "the host's figures of memory", Expected: "/proc/meminfo of its own",
			Enables:     "telling hosts apart, and seeing what others do",
			Consequence: report.Depth, beyond: true,
			Fix:        "run it with --boundary vm",
			References: []string{"proc_meminfo(5)"},
			observe: func(p *prober) {
				text, err := beginning("/proc/meminfo")
				p.add(memorySize, field(text, "MemTotal:"), err)
			},
			judge: func(v *view) outcome {
				return differs(v, memorySize, func(h *Host) string { return strconv.FormatUint(h.Memory, 10) })
			},
		},
		{
			ID: "leaks.boot-time", Door: "the time at which the host booted", Expected: "a time of booting of its own",
			Enables:     "telling hosts apart",
			Consequence: report.Depth, beyond: true,
			Fix:        "run it with --boundary vm",
			References: []string{"proc_stat(5)"},
			observe: func(p *prober) {
				text, err := beginning("/proc/stat")
				p.add(bootTime, field(text, "btime"), err)
			},
			judge: func(v *view) outcome {
				return differs(v, bootTime, func(h *Host) string { return strconv.FormatInt(h.Booted, 10) })
			},
		},
	}
}

const (
	memorySize = "read(/proc/meminfo, MemTotal)"
	bootTime   = "read(/proc/stat, btime)"
)

// differs wants a figure that is not the host's, where a kernel of its own was
// promised.
func differs(v *view, name string, host func(*Host) string) outcome {
	e, ok := v.call(name)
	switch {
	case v.context.Declared == nil || !v.context.Declared.OwnKernel:
		return isAbsent("this boundary shares the host's kernel by design")
	case !ok || e.Errno != "" || e.Value == "":
		return isUnclear("it cannot be read: " + e.Errno)
	case v.context.Host == nil || host(v.context.Host) == "0":
		return isUnclear("nobody told the host's figure")
	case e.Value == host(v.context.Host):
		return isOpen("the host's: " + e.Value)
	}
	return isShut(e.Value)
}
