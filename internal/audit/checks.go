package audit

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

func yes(s Said[bool], open, shut string) answer {
	switch {
	case !s.Known:
		return unknown(s.Why, s.From...)
	case s.Value:
		return leaked(open, s.From...)
	}
	return held(shut, s.From...)
}

// no is yes for what is good when it is true.
func no(s Said[bool], shut, open string) answer {
	s.Value = !s.Value
	return yes(s, open, shut)
}

func checkNamespace(s Said[Namespace], what string) answer {
	switch {
	case !s.Known:
		return unknown(s.Why, s.From...)
	case s.Value.Host:
		return leaked("the host's "+what+" namespace", s.From...)
	case s.Value.Of != "":
		return unknown(fmt.Sprintf("it is in the %s namespace of %.200s, and no wider than that one: look at it, too", what, s.Value.Of), s.From...)
	}
	return held("a "+what+" namespace of its own", s.From...)
}

func checkUserNS(c *Config) answer {
	s := c.UserNS
	switch {
	case !s.Known:
		return unknown(s.Why, s.From...)
	case s.Value.Host:
		return leaked("root inside is the host's root", s.From...)
	case s.Value.Of != "":
		return unknown("it joins the user namespace at "+s.Value.Of, s.From...)
	}
	return held("root inside is nobody on the host", s.From...)
}

// checkCaps is the answer for capabilities that a rule found.
func checkCaps(c *Config, found []string) answer {
	if !c.Caps.Known {
		return unknown(c.Caps.Why, c.Caps.From...)
	}
	if len(found) == 0 {
		observed := "none of them"
		if why := c.noCaps(); why != "" {
			observed = why
		}
		return held(observed, c.Caps.From...)
	}
	a := leaked(list(found), c.Caps.From...)
	a.detail = list(found)
	return a
}

func checkDangerous(c *Config) answer {
	var found, opens []string
	worst := report.Low
	for _, d := range dangerous {
		if !slices.Contains(c.reachable(), d.name) {
			continue
		}
		found, opens = append(found, d.name), append(opens, d.name+" "+d.opens)
		s := d.severity
		if c.confined() {
			s = d.mapped
		}
		if d.name == "CAP_SYS_PTRACE" && c.PID.Known && c.PID.Value.Host && !c.confined() {
			s = report.Critical
		}
		if rank(s) < rank(worst) {
			worst = s
		}
	}
	a := checkCaps(c, found)
	if a.verdict == report.Leaked {
		a.severity = worst
		a.enables = strings.Join(opens, "; ")
		if worst != report.Critical {
			a.consequence = report.Depth
			if worst == report.High && !c.confined() {
				a.consequence = report.Disturbs
			}
		}
	}
	return a
}

func rank(s report.Severity) int {
	return slices.Index([]report.Severity{report.Critical, report.High, report.Medium, report.Low}, s)
}

// usualDevices are in every container, and the same in each: the host's terminals,
// console and shared memory, which have usual names, too, are not.
var usualDevices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// diskNames begin the names of devices that hold file systems, or memory.
var diskNames = []string{
	"/dev/sd", "/dev/vd", "/dev/xvd", "/dev/nvme", "/dev/dm-", "/dev/mapper", "/dev/md", "/dev/mem", "/dev/kmem", "/dev/port",
	"/dev/block", "/dev/bcache", "/dev/disk", "/dev/drbd", "/dev/hd", "/dev/loop", "/dev/mmcblk", "/dev/mtdblock", "/dev/nbd", "/dev/pmem", "/dev/rbd", "/dev/sr", "/dev/zd", "/dev/zvol",
}

// noDisks begin like diskNames, and are other drivers.
var noDisks = []string{"/dev/loop-control"}

// isDisk tells by its name a device that holds file systems, or memory, and the directory
// of all devices, which --device takes like a device.
func isDisk(name string) bool {
	name = path.Clean(name)
	begins := func(p string) bool { return strings.HasPrefix(name, p) }
	return name == "/dev" || slices.ContainsFunc(diskNames, begins) && !slices.Contains(noDisks, name)
}

// allDevices stands for a directory or a mode with all of them.
const allDevices = "all devices"

func checkDevices(c *Config) answer {
	if !c.Devices.Known {
		return unknown(c.Devices.Why, c.Devices.From...)
	}
	var found []string
	var from []report.Evidence
	disk := false
	add := func(name string, block bool, e report.Evidence) {
		found, from = append(found, name), append(from, e)
		disk = disk || block || name == allDevices || isDisk(name)
	}
	for _, d := range c.Devices.Value {
		if !slices.Contains(usualDevices, path.Clean(d.Path)) {
			add(d.Path, d.Block, d.From)
		}
	}
	for _, m := range c.Mounts.Value {
		if p := path.Clean(m.Source); strings.HasPrefix(p, "/dev/") && !slices.Contains(usualDevices, p) {
			add(p, false, m.From)
		}
	}
	if len(found) == 0 {
		return held("none", c.Devices.From...)
	}
	a := leaked(list(found), from...)
	a.detail = list(found)
	if disk && !c.confined() {
		a.severity, a.consequence = report.Critical, report.Takeover
		a.enables = "the host's file systems and memory, past every permission"
	}
	return a
}

func checkDeviceRules(c *Config) answer {
	switch s := c.DeviceRules; {
	case !s.Known:
		return unknown(s.Why, s.From...)
	case len(s.Value) == 0:
		return held("no rule for all devices, for disks or for memory", s.From...)
	case c.Caps.Known && !slices.Contains(c.reachable(), "CAP_MKNOD"):
		// Only nodes that are there already can be opened.
		a := leaked(list(s.Value)+", without CAP_MKNOD", s.From...)
		a.severity, a.consequence = report.Medium, report.Depth
		return a
	default:
		return leaked(list(s.Value), s.From...)
	}
}

func checkSeccomp(c *Config) answer {
	switch s := c.Seccomp; {
	case !s.Known:
		return unknown(s.Why, s.From...)
	case s.Value.Off:
		return leaked(cmp.Or(s.Value.Name, "no filter"), s.From...)
	default:
		return held(s.Value.Name, s.From...)
	}
}

func checkSockets(c *Config) answer {
	s := c.Seccomp
	families := s.Value.Families
	switch {
	case c.Boundary == UserKernel:
		return notApplicable("gVisor's kernel has neither family", c.BoundaryFrom)
	case !s.Known:
		return unknown(s.Why, s.From...)
	case s.Value.Off:
		return leaked("AF_ALG and AF_VSOCK: "+cmp.Or(s.Value.Name, "there is no filter"), s.From...)
	case !families.Known:
		return unknown(families.Why, families.From...)
	case len(families.Value) > 0:
		return leaked("open: "+list(families.Value), families.From...)
	}
	return held("both are refused", families.From...)
}

func checkLSM(c *Config) answer {
	switch s := c.LSM; {
	case c.Boundary == UserKernel:
		return notApplicable("profiles are for programs on the host's kernel; gVisor's confines itself", c.BoundaryFrom)
	case !s.Known:
		return unknown(s.Why, s.From...)
	case s.Value == "":
		return leaked("no profile, and no label that confines", s.From...)
	default:
		return held(s.Value, s.From...)
	}
}

// The paths that every engine masks or protects, as far as kernels still have them,
// and those that have been added since for what they tell of neighbours.
var (
	mustMask = []string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/sys/firmware",
	}
	mustProtect = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	tellTale    = []string{"/proc/interrupts", "/sys/devices/virtual/powercap"}
)

func missing(want []string, have ...[]string) (out []string) {
	for _, p := range want {
		if !slices.ContainsFunc(have, func(l []string) bool {
			return slices.ContainsFunc(l, func(h string) bool { return below(p, path.Clean(h)) })
		}) {
			out = append(out, p)
		}
	}
	return out
}

func checkPaths(c *Config) answer {
	if c.Boundary == UserKernel {
		return notApplicable("gVisor's /proc and /sys show its own kernel", c.BoundaryFrom)
	}
	if !c.Masked.Known || !c.ReadOnly.Known {
		return unknown(c.Masked.Why, c.Masked.From...)
	}
	open := append(missing(mustMask, c.Masked.Value), missing(mustProtect, c.Masked.Value, c.ReadOnly.Value)...)
	from := slices.Concat(c.Masked.From, c.ReadOnly.From)
	usual := len(open)+len(c.Writable)+len(c.Cgroups) > 0
	for _, k := range c.Kernel {
		more := missing(k.below(mustMask), c.Masked.Value)
		if !k.ReadOnly {
			more = append(more, missing(k.below(mustProtect), c.Masked.Value, c.ReadOnly.Value)...)
		}
		if len(more) > 0 {
			open, from = append(open, more...), append(from, k.From)
		}
	}
	var observed []string
	if len(open) > 0 {
		observed = append(observed, "not masked or read-only: "+list(open))
	}
	if len(c.Writable) > 0 {
		from = append(from, c.Writable...)
		observed = append(observed, "/sys is writable")
	}
	if len(c.Cgroups) > 0 {
		from = append(from, c.Cgroups...)
		observed = append(observed, "the cgroups are writable")
	}
	if len(observed) == 0 {
		return held("the usual ones are masked and read-only", from...)
	}
	a := leaked(strings.Join(observed, "; "), from...)
	a.detail = list(open)
	if !usual {
		a.fix = c.kernelFix()
	}
	if len(open)+len(c.Writable) == 0 { // nothing else of the kernel's
		a.severity, a.consequence = report.Medium, report.Exhausts
		if c.confined() {
			a.severity = report.Low
		}
		a.enables = "lifting the limits of the workload's own cgroup; with cgroups of version 1, or without a cgroup namespace, freezing and starving others"
	}
	return a
}

func checkLeaks(c *Config) answer {
	if c.Boundary == UserKernel {
		return notApplicable("gVisor's /proc and /sys show its own kernel", c.BoundaryFrom)
	}
	if !c.Masked.Known {
		return unknown(c.Masked.Why, c.Masked.From...)
	}
	open, from := missing(tellTale, c.Masked.Value), c.Masked.From
	usual := len(open) > 0
	for _, k := range c.Kernel {
		if more := missing(k.below(tellTale), c.Masked.Value); len(more) > 0 {
			open, from = append(open, more...), append(slices.Clone(from), k.From)
		}
	}
	if len(open) == 0 {
		return held("masked", from...)
	}
	a := leaked("not masked: "+list(open), from...)
	a.detail = list(open)
	if c.Kind == Podman {
		a.detail = strings.Join(open, ":")
	}
	if !usual {
		a.fix = c.kernelFix()
	}
	return a
}

// kernelFix is how to be rid of what is mounted of the kernel's beside /proc and /sys.
func (c *Config) kernelFix() string {
	var targets []string
	for _, k := range c.Kernel {
		targets = append(targets, k.Target)
	}
	if c.Kind == OCI {
		return "config.json: remove the mounts at " + list(targets)
	}
	return "leave out the volumes of the types proc and sysfs at " + list(targets)
}

// safeSysctls concern the workload alone: the list of the Pod Security Standards.
var safeSysctls = []string{
	"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies",
	"net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}

func checkSysctls(c *Config) answer {
	if !c.Sysctls.Known {
		return unknown(c.Sysctls.Why, c.Sysctls.From...)
	}
	var found []string
	var from []report.Evidence
	for _, s := range c.Sysctls.Value {
		if !slices.Contains(safeSysctls, strings.ReplaceAll(s.Name, "/", ".")) {
			found, from = append(found, s.Name), append(from, s.From)
		}
	}
	if len(found) == 0 {
		return held("none beyond those", c.Sysctls.From...)
	}
	a := leaked(list(found), from...)
	a.detail = list(found)
	return a
}

func checkRoot(c *Config) answer {
	a := yes(c.Root, "root", "user "+c.User)
	if c.Kind == Bulkhead && a.verdict == report.Leaked && len(c.reachable()) == 0 {
		a.observed = "root, without capabilities"
	}
	return a
}

func checkLimit(c *Config, s Said[Limit], what string) answer {
	switch {
	case !s.Known:
		return unknown(s.Why, s.From...)
	case s.Value != "":
		return held(string(s.Value), s.From...)
	case c.Boundary == OwnVM && what != "processes":
		return held("what the machine has", c.BoundaryFrom)
	}
	return leaked("no limit of "+what, s.From...)
}

func checkPorts(c *Config) answer {
	if !c.Ports.Known {
		if c.Kind == OCI {
			return notApplicable(c.Ports.Why)
		}
		return unknown(c.Ports.Why, c.Ports.From...)
	}
	var found []string
	var from []report.Evidence
	for _, p := range c.Ports.Value {
		if everyAddress(p) {
			found, from = append(found, p.Port), append(from, p.From)
		}
	}
	if len(found) == 0 {
		return held("none", c.Ports.From...)
	}
	if c.Net.Known && (c.Net.Value.Host || c.Net.Value.Of != "") {
		return notApplicable("nothing is published into a network that is not the workload's own", slices.Concat(from, c.Net.From)...)
	}
	a := leaked(list(found), from...)
	a.detail = portsFix(c.Ports.Value)
	return a
}

// everyAddress reports whether a port is published on all addresses of the host.
func everyAddress(p Port) bool {
	address, err := netip.ParseAddr(strings.Trim(p.Host, "[]"))
	return p.Host == "" || err == nil && address.IsUnspecified()
}

// portsFix is what to publish instead, of those on every address.
func portsFix(ports []Port) string {
	var words []string
	all := false
	for _, p := range ports {
		switch {
		case !everyAddress(p):
		case p.Port == everyPort:
			all = true
		default:
			// Docker shows a port twice, for IPv4 and IPv6.
			if w := "-p 127.0.0.1:HOST:" + strings.TrimSuffix(p.Port, "/tcp"); !slices.Contains(words, w) {
				words = append(words, w)
			}
		}
	}
	switch publish := list(words); {
	case !all:
		return "give the address: " + publish
	case len(words) == 0:
		return "leave out -P, and publish the ports that are needed with an address: -p 127.0.0.1:HOST:PORT"
	default:
		return "leave out -P, and give the address: " + publish
	}
}

func checkEmulated(c *Config) answer {
	return yes(c.Emulated, "software emulation", "hardware virtualization")
}

func checkMonitor(c *Config) answer {
	s := c.Monitor
	if !s.Known {
		if s.Why == "" && c.Kind == Bulkhead {
			return notApplicable("the machine does not run")
		}
		return unknown(s.Why, s.From...)
	}
	var loose []string
	for _, l := range []struct {
		is   bool
		what string
	}{
		{s.Value.Root, "it is the host's root"}, {!s.Value.Filtered, "its system calls are not filtered"},
		{!s.Value.Jailed, "it has the host's root directory"}, {s.Value.SharedUser != "", "another machine has its user: " + s.Value.SharedUser},
	} {
		if l.is {
			loose = append(loose, l.what)
		}
	}
	if len(loose) > 0 {
		return leaked(strings.Join(loose, "; "), s.From...)
	}
	return held("a user and a root of its own, filtered", s.From...)
}
