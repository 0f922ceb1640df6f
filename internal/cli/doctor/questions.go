package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
)

func root(m Machine) []Result {
	const name = "root"
	if m.UID != 0 {
		return []Result{required(missing(name, fmt.Sprintf("this is user %d", m.UID), "run bulkhead as root, such as with sudo; running without root is planned"))}
	}
	return []Result{required(ok(name, "this is root"))}
}

// The baseline, and what younger kernels add.
const (
	minMajor, minMinor = 6, 1
	lowerdirMinor      = 5 // 6.5: overlay layers of any number, given one by one
)

func hostKernel(m Machine) []Result {
	const name = "kernel"
	release, err := m.Release()
	if err != nil {
		return []Result{unknown(name, err)}
	}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return []Result{unknown(name, fmt.Errorf("release %q: %w", release, err))}
	}
	if major < minMajor || major == minMajor && minor < minMinor {
		return []Result{required(missing(name, "Linux "+release+" is older than 6.1", "upgrade the kernel; Debian 12 and later have what is needed"))}
	}
	detail := "Linux " + release
	if major == minMajor && minor < lowerdirMinor {
		detail += " (before 6.5: images with very many layers take another way)"
	}
	return []Result{required(ok(name, detail))}
}

// namespaceFiles are what /proc/self/ns holds for each namespace that a
// workload has of its own.
var namespaceFiles = []string{"mnt", "pid", "net", "ipc", "uts", "cgroup", "user"}

func namespaces(m Machine) []Result {
	var lost []string
	for _, ns := range namespaceFiles {
		limit, err := m.ReadFile("/proc/sys/user/max_" + ns + "_namespaces")
		if err == nil && strings.TrimSpace(string(limit)) == "0" {
			lost = append(lost, ns)
		}
	}
	if len(lost) > 0 {
		return []Result{required(missing("namespaces", "not allowed: "+strings.Join(lost, ", "), "raise user.max_NAME_namespaces with sysctl"))}
	}
	const name = "user namespaces"
	err := m.UserNamespace(func(*os.File) error { return nil })
	switch {
	case err == nil:
		return []Result{required(ok(name, "can be made, with ID maps"))}
	case refused(err):
		return []Result{required(missing(name, err.Error(), "enable CONFIG_USER_NS and raise user.max_user_namespaces; --userns host does without, as a weakening"))}
	}
	return []Result{unknown(name, err)}
}

func ranges(m Machine) []Result {
	const name = "ID ranges"
	n, err := m.IDRanges()
	if err != nil {
		return []Result{missing(name, err.Error(), "give root a range of at least 65536 in both /etc/subuid and /etc/subgid, such as root:1879048192:65536000")}
	}
	return []Result{ok(name, fmt.Sprintf("for %d workloads at a time", n))}
}

// controllers are those that limits need, with the flags that are lost without.
var controllers = []struct{ name, v1, flags string }{
	{"memory", "memory", "--memory and its kin"}, {"cpu", "cpu", "--cpus, --cpu-shares"}, {"pids", "pids", "--pids-limit"},
	{"cpuset", "cpuset", "--cpuset-cpus, --cpuset-mems"}, {"io", "blkio", "--device-read-bps and its kin, --blkio-weight"},
}

func cgroups(m Machine) []Result {
	layout, err := m.Cgroups()
	if err != nil {
		return []Result{unknown("cgroups", err)}
	}
	if layout.Mode == cgroup.ModeNone {
		return []Result{required(missing("cgroups", "no hierarchy is mounted", "mount cgroup2 at /sys/fs/cgroup"))}
	}
	out := []Result{required(ok("cgroups", "mode "+string(layout.Mode)))}
	for _, c := range controllers {
		name := "controller " + c.name
		switch {
		case slices.Contains(layout.V2Controllers, c.name):
			out = append(out, ok(name, "in the v2 hierarchy"))
		case slices.ContainsFunc(layout.V1, func(h cgroup.Hierarchy) bool { return slices.Contains(h.Controllers, c.v1) }):
			out = append(out, ok(name, "in a v1 hierarchy"))
		default:
			out = append(out, missing(name, "without it these flags fail: "+c.flags, "enable the controller in the kernel, and in the cgroup that bulkhead runs in"))
		}
	}
	return out
}

func seccomp(m Machine) []Result {
	const name, file = "seccomp", "/proc/sys/kernel/seccomp/actions_avail"
	text, err := m.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return []Result{required(missing(name, "the kernel has no system call filters", "enable CONFIG_SECCOMP_FILTER; --security-opt seccomp=unconfined does without, as a weakening"))}
	}
	if err != nil {
		return []Result{unknown(name, err)}
	}
	actions := strings.Fields(string(text))
	if !slices.Contains(actions, "errno") {
		return []Result{required(missing(name, "filters cannot return errors", "use a kernel of 4.14 or later"))}
	}
	out := []Result{required(ok(name, "actions "+strings.Join(actions, " ")))}
	if !slices.Contains(actions, "user_notif") {
		out = append(out, missing("seccomp notification", "--seccomp-report fails", "use a kernel of 5.0 or later"))
	}
	return out
}

func appArmor(m Machine) []Result {
	const name = "AppArmor"
	text, err := m.ReadFile("/sys/module/apparmor/parameters/enabled")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Result{missing(name, "the kernel has none; a second line of defence is missing", "boot with apparmor=1 security=apparmor where the kernel has it")}
	case err != nil:
		return []Result{unknown(name, err)}
	case strings.TrimSpace(string(text)) != "Y":
		return []Result{missing(name, "switched off; a second line of defence is missing", "boot with apparmor=1 security=apparmor")}
	}
	return []Result{ok(name, "enabled")}
}

// lowSpace is how many free bytes are little for images.
const lowSpace = 1 << 30

func storage(m Machine) []Result {
	dir := m.StateDir
	var out []Result
	err := m.Overlay(dir)
	switch {
	case err == nil:
		out = append(out, required(ok("overlay", "works in "+dir)))
	case refused(err):
		out = append(out, required(missing("overlay", err.Error(), "load the module overlay, and keep state on ext4, xfs or btrfs with --root, not on another overlay")))
	default:
		out = append(out, unknown("overlay", err))
	}
	const idmap = "ID-mapped mounts"
	err = m.UserNamespace(func(ns *os.File) error { return m.IDMapped(dir, ns) })
	switch {
	case err == nil:
		out = append(out, required(ok(idmap, "work in "+dir)))
	case refused(err):
		out = append(out, required(missing(idmap, err.Error(), "keep state on ext4, xfs, btrfs or tmpfs with --root; --userns host does without, as a weakening")))
	default:
		out = append(out, unknown(idmap, err))
	}
	free, err := m.Space(dir)
	switch {
	case err != nil:
		out = append(out, unknown("disk space", err))
	case free < lowSpace:
		out = append(out, warning("disk space", "only "+output.Size(int64(free))+" free in "+dir, "free some, such as with `bulkhead image prune`"))
	default:
		out = append(out, ok("disk space", output.Size(int64(min(free, 1<<62)))+" free in "+dir))
	}
	return out
}

// neededCaps are the capabilities (capabilities(7)) that are used, by number.
var neededCaps = []struct {
	bit      uint
	name     string
	required bool
	lost     string
}{
	{0, "CAP_CHOWN", true, "files cannot be given to a workload's IDs"}, {1, "CAP_DAC_OVERRIDE", true, "images cannot be unpacked"},
	{3, "CAP_FOWNER", true, "images cannot be unpacked"}, {5, "CAP_KILL", true, "workloads cannot be signalled"},
	{6, "CAP_SETGID", true, "ID maps cannot be written"}, {7, "CAP_SETUID", true, "ID maps cannot be written"},
	{21, "CAP_SYS_ADMIN", true, "nothing can be mounted"}, {27, "CAP_MKNOD", true, "no device files can be made"},
	{12, "CAP_NET_ADMIN", false, "loopback cannot be set up with --userns host"},
	{19, "CAP_SYS_PTRACE", false, "some checks of running workloads fail"},
	{24, "CAP_SYS_RESOURCE", false, "a negative --oom-score-adj and raising hard limits with --ulimit fail"},
}

func capabilities(m Machine) []Result {
	const name = "capabilities"
	text, err := m.ReadFile("/proc/self/status")
	if err != nil {
		return []Result{unknown(name, err)}
	}
	_, rest, found := strings.Cut(string(text), "CapEff:")
	field, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	set, err := strconv.ParseUint(field, 16, 64)
	if !found || err != nil {
		return []Result{unknown(name, fmt.Errorf("/proc/self/status has no CapEff"))}
	}
	var out []Result
	for _, c := range neededCaps {
		if set&(1<<c.bit) == 0 {
			r := missing(c.name, c.lost, "give bulkhead "+c.name+"; in a virtual machine or on the host itself root has it")
			r.Required = c.required
			out = append(out, r)
		}
	}
	if out == nil {
		out = []Result{required(ok(name, "all that are needed"))}
	}
	return out
}

// fewFiles is how many open files are few for a supervisor and its helpers.
const fewFiles = 4096

func files(m Machine) []Result {
	n, err := m.MaxFiles()
	switch {
	case err != nil:
		return []Result{unknown("open files", err)}
	case n < fewFiles:
		return []Result{warning("open files", fmt.Sprintf("at most %d for each process", n), "raise the hard limit of nofile (limits.conf(5)); workloads cannot have more than bulkhead")}
	}
	return []Result{ok("open files", fmt.Sprintf("at most %d for each process", n))}
}

// vulnerabilities looks at what the kernel says of the processor: one kernel
// backs every container, so an unmitigated flaw is everybody's.
func vulnerabilities(m Machine) []Result {
	const name, dir = "processor flaws", "/sys/devices/system/cpu/vulnerabilities"
	entries, err := m.ReadDir(dir)
	if err != nil {
		return []Result{unknown(name, err)}
	}
	var open []string
	for _, e := range entries {
		text, err := m.ReadFile(dir + "/" + e.Name())
		if err != nil {
			return []Result{unknown(name, err)}
		}
		if strings.HasPrefix(string(text), "Vulnerable") {
			open = append(open, e.Name())
		}
	}
	if len(open) > 0 {
		return []Result{warning(name, "not mitigated: "+strings.Join(open, ", "), "update the kernel and the processor's microcode; see "+dir)}
	}
	return []Result{ok(name, "all known ones are mitigated or do not apply")}
}
