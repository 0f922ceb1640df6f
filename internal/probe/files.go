package probe

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

func fileProbes() []Probe {
	return []Probe{
		writable("files.sysctls", "the host's kernel parameters", "changing how the host's kernel manages memory, files and faults", report.Disturbs,
			[]string{"--security-opt unmask"}, "/proc/sys/kernel/panic", "/proc/sys/vm/swappiness", "/proc/sys/fs/file-max"),
		writable("files.usermode-helpers", "programs that the host's kernel starts as root",
			"having the kernel run a program of one's own as root of the host, outside of every container", report.Takeover,
			[]string{"--security-opt unmask", "--volume /proc:", "--volume /sys:", "--volume /:"},
			"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug", "/proc/sys/kernel/poweroff_cmd",
			"/sys/kernel/uevent_helper", "/proc/sys/fs/binfmt_misc/register"),
		writable("files.interrupt-routing", "the routing of the host's interrupts", "slowing down the host's devices", report.Disturbs,
			[]string{"--security-opt unmask"}, "/proc/irq/default_smp_affinity"),
		writable("files.buses", "the host's devices on PCI", "changing how a device of the host works, by its configuration registers", report.Disturbs,
			[]string{"--security-opt unmask", "--volume /proc:", "--volume /:"}, "/proc/bus/pci/00/00.0"),
		writable("files.sysfs", "the host's devices in /sys", "changing what devices and the kernel's memory management do", report.Disturbs,
			[]string{"--volume /sys:"}, "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/ksm/run", "/sys/kernel/mm/lru_gen/enabled",
			"/sys/kernel/profiling", "/sys/block/loop0/queue/nr_requests", "/sys/kernel/rcu_expedited", "/sys/power/state",
			"/sys/kernel/debug/clear_warn_once", "/sys/kernel/tracing/tracing_on", "/sys/kernel/debug/tracing/tracing_on"),
		{
			ID: "files.sysrq", Door: "the kernel's emergency keys", Expected: "/proc/sysrq-trigger cannot be written to",
			Enables:     "rebooting or crashing the host",
			Consequence: report.Disturbs,
			Opens:       []string{"--security-opt unmask"},
			Fix:         "leave /proc/sysrq-trigger read-only",
			References:  []string{"Documentation/admin-guide/sysrq.rst"},
			observe: func(p *prober) {
				// It is not even opened.
				p.everywhere([]string{"/proc/sysrq-trigger"}, func(f string) {
					p.add("faccessat("+f+", W_OK)", "", unix.Faccessat(unix.AT_FDCWD, f, unix.W_OK, 0))
				})
			},
			judge: judgeEverywhere(attempts),
		},
		{
			ID: "files.cgroups", Door: "control groups", Expected: "no cgroup can be written to",
			Enables:     "lifting one's own limits, and with the host's tree freezing others",
			Consequence: report.Disturbs,
			Opens:       []string{"--volume /sys/fs/cgroup", "--volume /sys:", "--volume /:"},
			Fix:         "mount cgroups read-only",
			References:  []string{"cgroups(7)"},
			observe:     func(p *prober) { openInCgroups(p, "cgroup.procs", false) },
			judge:       inMounts,
		},
		{
			ID: "files.release-agent", Door: "the program that a cgroup of version 1 starts", Expected: "no release_agent can be written to",
			Enables:     "having the kernel run a program of one's own as root of the host (CVE-2022-0492)",
			Consequence: report.Takeover,
			Opens:       []string{"--volume "},
			Fix:         "mount cgroups read-only, or leave them out",
			References:  []string{"cgroups(7)", "CVE-2022-0492"},
			observe:     func(p *prober) { openInCgroups(p, "release_agent", true) },
			judge:       inMounts,
		},
		{
			ID: "files.host-file", Door: "a file of the host", Expected: "no directory that the host runs on is mounted, and no file that was put up on the host is below /",
			Enables:     "reading, and often changing, what the host runs on",
			Consequence: report.Takeover, beyond: true,
			Opens:      []string{"--volume /:", "--volume /tmp", "--volume /var", "--volume /run"},
			Fix:        "mount the one directory that is needed, read-only",
			References: []string{"CIS Docker 5.6"},
			observe:    observeHostFile,
			judge:      judgeHostFile,
		},
		{
			ID: "files.propagation", Door: "mounts that appear on the host", Expected: "no mount is shared",
			Enables:     "covering the host's files by mounting over them, with SYS_ADMIN",
			Consequence: report.Disturbs, // a kernel of its own has mounts of its own
			Opens:       []string{"--volume "},
			Fix:         "leave out shared propagation: private is the default",
			References:  []string{"mount_namespaces(7)", "CIS Docker 5.19"},
			observe:     observePropagation,
			judge: func(v *view) outcome {
				e, ok := v.call(sharedMounts)
				switch {
				case !ok || e.Errno != "":
					return isUnclear(mountinfo + " cannot be read: " + e.Errno)
				case e.Value == "":
					return isShut("no shared mount")
				}
				return isOpen("shared: " + e.Value)
			},
		},
		{
			ID: "files.engine-sockets", Door: "a container engine of the host", Expected: "no engine's socket answers",
			Enables:     "starting anything on the host as root",
			Consequence: report.Takeover, beyond: true,
			Opens:      []string{"--volume "},
			Fix:        "do not mount the socket; a filtering proxy where something needs it",
			References: []string{"CIS Docker 5.31"},
			observe:    observeSockets,
			judge:      judgeSockets,
		},
		{
			ID: "files.root", Door: "the image's files", Expected: "the root file system is read-only, as was asked for",
			Enables:     "changing the programs that run next",
			Consequence: report.Depth,
			Fix:         "run it with --read-only",
			References:  []string{"CIS Docker 5.12"},
			observe: func(p *prober) {
				_, flags, _, err := fileSystem("/")
				p.add("statfs(/)", map[bool]string{true: "read-only", false: "writable"}[flags&unix.ST_RDONLY != 0], err)
			},
			judge: func(v *view) outcome {
				e, ok := v.call("statfs(/)")
				switch {
				case v.context.Declared == nil || !v.context.Declared.ReadOnlyRoot:
					return isAbsent("nobody asked for a read-only root")
				case !ok || e.Errno != "":
					return isUnclear("statfs fails: " + e.Errno)
				case e.Value == "read-only":
					return isShut(e.Value)
				}
				return isOpen(e.Value)
			},
		},
		{
			ID: "files.descriptors", Door: "files that were left open", Expected: "no descriptor but the standard streams",
			Enables:     "reaching the host's files through a directory that the runtime forgot to close",
			Consequence: report.Takeover, beyond: true,
			Fix:        "update the runtime",
			References: []string{"CVE-2024-21626"},
			observe:    observeDescriptors,
			judge: func(v *view) outcome {
				e, ok := v.call(leftOpen)
				switch {
				case !ok || e.Errno != "":
					return isUnclear("/proc/self/fd cannot be read: " + e.Errno)
				case e.Value == "":
					return isShut("none beyond 2")
				}
				return isOpen(e.Value)
			},
		},
		{
			ID: "files.working-directory", Door: "a working directory of the host", Expected: "the working directory lies below /",
			Enables:     "reaching the host's files by relative paths",
			Consequence: report.Takeover, beyond: true,
			Fix:        "update the runtime",
			References: []string{"CVE-2024-21626"},
			observe: func(p *prober) {
				dir, err := getcwd()
				p.add("getcwd()", dir, err)
			},
			judge: func(v *view) outcome {
				e, ok := v.call("getcwd()")
				switch {
				case !ok || e.Errno != "" && e.Errno != "ENOENT":
					return isUnclear("getcwd fails: " + e.Errno)
				case strings.HasPrefix(e.Value, "/"):
					return isShut(e.Value)
				}
				return isOpen(first(e.Value, "outside of the root: ENOENT"))
			},
		},
		{
			ID: "files.proc", Door: "a /proc that is none", Expected: "/proc is procfs",
			Enables:     "having the runtime write what it means for the kernel into a file",
			Consequence: report.Depth,
			Opens:       []string{"--volume ", "--tmpfs /proc"},
			Fix:         "mount nothing over /proc",
			References:  []string{"CVE-2025-31133", "CVE-2025-52881"},
			observe: func(p *prober) {
				kind, _, _, err := fileSystem("/proc")
				p.add("statfs(/proc)", fmt.Sprintf("type %#x", kind), err)
			},
			judge: func(v *view) outcome {
				e, ok := v.call("statfs(/proc)")
				switch {
				case !ok || e.Errno != "":
					return isUnclear("statfs fails: " + e.Errno)
				case e.Value == fmt.Sprintf("type %#x", unix.PROC_SUPER_MAGIC):
					return isShut("procfs")
				}
				return isOpen(e.Value)
			},
		},
		{
			ID: "files.null", Door: "a /dev/null that is none", Expected: "/dev/null is the device 1:3",
			Enables:     "unmasking what is masked with it",
			Consequence: report.Depth,
			Opens:       []string{"--device ", "--volume "},
			Fix:         "update the runtime; mount nothing over /dev/null",
			References:  []string{"CVE-2025-31133"},
			observe: func(p *prober) {
				var s unix.Stat_t
				err := unix.Lstat("/dev/null", &s)
				value := "no device"
				if s.Mode&unix.S_IFMT == unix.S_IFCHR {
					value = fmt.Sprintf("%d:%d", unix.Major(s.Rdev), unix.Minor(s.Rdev))
				}
				p.add("lstat(/dev/null)", value, err)
			},
			judge: func(v *view) outcome {
				e, ok := v.call("lstat(/dev/null)")
				switch {
				case !ok || e.Errno != "" && e.Errno != "ENOENT":
					return isUnclear("lstat fails: " + e.Errno)
				case e.Value == "1:3":
					return isShut(e.Value)
				}
				return isOpen(first(e.Errno, e.Value))
			},
		},
	}
}

// writable is a probe that opens files for writing, without writing, wherever they are
// mounted.
func writable(id, door, enables string, c report.Consequence, opens []string, paths ...string) Probe {
	return Probe{
		ID: id, Door: door, Expected: "opening for writing is refused", Enables: enables, Consequence: c, Opens: opens,
		Fix: "leave the paths below /proc and /sys masked and read-only", References: []string{"proc(5)", "CVE-2025-52881"},
		observe: func(p *prober) {
			p.everywhere(paths, func(f string) {
				_ = p.open(f, unix.O_WRONLY) // it is evidence
			})
		},
		judge: judgeEverywhere(attempts),
	}
}

const mountsRead = "read(" + mountinfo + ")"

// openInCgroups tries a file of each cgroup file system's root for writing.
func openInCgroups(p *prober, name string, first bool) {
	list, whole, err := mounts()
	kinds := []string{"cgroup", "cgroup2"}
	if first {
		kinds = kinds[:1]
	}
	p.add(mountsRead, "", err)
	if !whole && err == nil {
		p.trouble("%s is too long", mountinfo)
	}
	for _, m := range list {
		if slices.Contains(kinds, m.kind) && len(p.o.Calls) < maxCalls {
			_ = p.open(path.Join(m.point, name), unix.O_WRONLY) // it is evidence
		}
	}
}

// inMounts judges attempts behind the reading of mountinfo.
func inMounts(v *view) outcome {
	calls := v.calls()
	switch {
	case len(calls) == 0 || calls[0].Errno != "":
		return isUnclear(mountinfo + " cannot be read")
	case len(calls) == 1:
		return isShut("none is mounted")
	}
	return attempts(calls[1:])
}

const sharedMounts = "read(" + mountinfo + ", shared:)"

func observePropagation(p *prober) {
	list, whole, err := mounts()
	var points []string
	for _, m := range list {
		if m.shared {
			points = append(points, m.point)
		}
	}
	p.add(sharedMounts, strings.Join(points, " "), err)
	if err == nil && !whole && len(points) == 0 {
		p.trouble("%s is too long", mountinfo)
	}
}

const leftOpen = "readlink(/proc/self/fd/3 and higher)"

// observeDescriptors lists what is open and not ours. What the program opened itself,
// Go's runtime included, closes on execve(2), and what it was given has not.
func observeDescriptors(p *prober) {
	const dir = "/proc/self/fd"
	fds, err := os.ReadDir(dir)
	var found []string
	for _, f := range fds {
		to, lerr := os.Readlink(path.Join(dir, f.Name()))
		if errors.Is(lerr, os.ErrNotExist) || len(f.Name()) == 1 && f.Name() < "3" {
			continue
		}
		n, _ := strconv.Atoi(f.Name()) // the kernel writes numbers there
		if flags, ferr := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); ferr == nil && flags&unix.FD_CLOEXEC != 0 || errors.Is(ferr, unix.EBADF) {
			continue
		}
		found = append(found, f.Name()+" is "+to)
	}
	p.add(leftOpen, strings.Join(found, ", "), err)
}
