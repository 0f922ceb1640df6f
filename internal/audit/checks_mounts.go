package audit

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// engineSockets are names of sockets whose owner can start anything on the host. On
// the system's bus it is systemd that does.
var engineSockets = []string{
	"docker.sock", "containerd.sock", "crio.sock", "podman.sock", "libvirt-sock", "buildkitd.sock", "k3s.sock", "cri-dockerd.sock", "system_bus_socket",
}

// engineDirs hold them, or what is as good.
var engineDirs = []string{
	"/run/buildkit", "/run/docker", "/run/containerd", "/run/containers", "/run/k3s", "/run/podman", "/run/crio", "/run/libvirt", "/run/bulkhead", "/var/lib/bulkhead", "/var/lib/docker",
	"/var/lib/containerd", "/var/lib/containers", "/var/lib/incus", "/var/lib/lxd", "/var/snap/lxd/common/lxd", "/run/dbus", "/run/systemd",
}

// plainDirs are parts of engineDirs where nobody starts anything: who answers to a
// name, and where messages for the log go.
var plainDirs = []string{"/run/systemd/resolve", "/run/systemd/journal"}

// userSockets are what a user's session has in /run/user/UID to start programs of
// the user with, or containers.
var userSockets = []string{"bus", "containerd", "dbus-1", "docker", "podman", "systemd"}

// systemDirs are directories that the host runs on. Of the deep ones every part
// counts as much as the whole; a part of the wide ones is somebody's configuration
// or program, unless it is critical. What holds a deep or critical one counts as much.
var (
	systemDirs = []string{"/", "/dev", "/home", "/run", "/var", "/var/lib"}
	deepDirs   = []string{"/boot", "/proc", "/root", "/sys", "/var/spool/cron", "/var/lib/kubelet"}
	wideDirs   = []string{"/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr"}
	critical   = []string{
		"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/etc/cron.d", "/etc/cron.daily", "/etc/cron.hourly",
		"/etc/crontab", "/etc/systemd", "/etc/init.d", "/etc/pam.d", "/etc/ld.so.preload", "/etc/ld.so.conf.d", "/etc/profile.d", "/etc/kubernetes",
		"/etc/docker", "/etc/containers", "/usr/bin", "/usr/sbin", "/usr/lib/systemd", "/usr/local/bin", "/usr/local/sbin",
	}
)

// hostPart tells whether a mount is one of the host's system, and whether it is only
// of a part that may be harmless.
func hostPart(m Mount) (system, part bool) {
	p := hostPath(m.Source)
	in := func(dirs []string) bool {
		return slices.ContainsFunc(dirs, func(d string) bool { return below(p, d) })
	}
	holds := func(dirs []string) bool {
		return slices.ContainsFunc(dirs, func(d string) bool { return below(d, p) })
	}
	switch {
	case isSocket(p) || m.ReadOnly && in(harmless):
		return false, false
	case slices.Contains(systemDirs, p), slices.Contains(wideDirs, p), in(deepDirs), in(critical), holds(deepDirs), holds(critical):
		return true, false
	}
	return in(wideDirs), in(wideDirs)
}

// harmless are files of the host that engines and people mount everywhere, to read:
// who writes them chooses what names and certificates the host believes.
var harmless = []string{
	"/etc/localtime", "/etc/timezone", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/etc/ssl/certs", "/etc/pki", "/etc/ca-certificates",
	"/usr/share/zoneinfo", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
}

// hostPath is a source as it is on the host, whatever links lead there on the usual
// systems.
func hostPath(s string) string {
	s = path.Clean(s)
	if s == "/var/run" || strings.HasPrefix(s, "/var/run/") {
		return strings.TrimPrefix(s, "/var")
	}
	return s
}

func below(p, dir string) bool { return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/") }

func isSocket(source string) bool {
	p := hostPath(source)
	if slices.Contains(engineSockets, path.Base(p)) {
		return true
	}
	return (isEngineDir(p) || isSession(p)) && !strings.Contains(p, "/volumes/") && !isEngineFile(p)
}

// isSession tells the directories of users' sessions, and what of one starts programs.
func isSession(p string) bool {
	rest, ok := strings.CutPrefix(p, "/run/user")
	if !ok || rest != "" && rest[0] != '/' {
		return false
	}
	parts := strings.Split(rest, "/") // "", UID, name
	return len(parts) < 3 || slices.Contains(userSockets, parts[2])
}

func isEngineDir(source string) bool {
	in := func(d string) bool { return below(hostPath(source), d) }
	return slices.ContainsFunc(engineDirs, in) && !slices.ContainsFunc(plainDirs, in)
}

// isEngineFile tells the files that an engine itself mounts into a container.
func isEngineFile(p string) bool {
	base := path.Base(p)
	return slices.Contains([]string{"resolv.conf", "hostname", "hosts", ".containerenv", "shm", "secrets"}, base)
}

// layerDirs are those of engineDirs in which engines keep what images and containers
// are made of.
var layerDirs = []string{
	"/run/bulkhead", "/run/containerd", "/run/containers", "/var/lib/bulkhead", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker",
}

// isLayer tells the directories of images and containers. The whole of an engine's
// directory is none, nor is a large part of it, nor a volume.
func isLayer(source string) bool {
	return slices.ContainsFunc(layerDirs, func(d string) bool {
		rest, ok := strings.CutPrefix(hostPath(source), d+"/")
		return ok && strings.Contains(rest, "/") && !strings.Contains("/"+rest, "/volumes/")
	})
}

// withoutDevice are file systems to which a source is only a name. That of fuse is the
// device of all who serve one.
var withoutDevice = []string{"cgroup", "cgroup2", "devpts", "fuse", "mqueue", "proc", "ramfs", "sysfs", "tmpfs"}

// mounted returns what of the host is in a mount that is no bind: directories, as if
// they were bound, and devices.
func mounted(kind string, options []string, m Mount) (dirs []Mount, devices []Device) {
	switch {
	case slices.Contains(withoutDevice, kind), strings.HasPrefix(kind, "fuse."):
	case kind == "devtmpfs":
		devices = append(devices, Device{Path: allDevices, From: m.From})
	case strings.HasPrefix(path.Clean(m.Source), "/dev/"):
		devices = append(devices, Device{Path: m.Source, Block: true, From: m.From})
	}
	for o := range strings.SplitSeq(strings.Join(options, ","), ",") {
		name, value, _ := strings.Cut(o, "=")
		// An overlay writes to the upper directory only.
		lower := name == "lowerdir" || name == "lowerdir+" || name == "datadir+"
		if !lower && name != "upperdir" {
			continue
		}
		for source := range strings.SplitSeq(value, ":") {
			if path.IsAbs(source) && !isLayer(source) {
				dirs = append(dirs, Mount{Source: source, Target: m.Target, ReadOnly: m.ReadOnly || lower, Shared: m.Shared, From: m.From})
			}
		}
	}
	return dirs, devices
}

// addKernel takes in a mount of procfs or sysfs elsewhere than where masks are for.
func (c *Config) addKernel(kind string, m Mount) {
	usual, ok := map[string]string{"proc": "/proc", "sysfs": "/sys"}[kind]
	if target := path.Clean("/" + m.Target); ok && target != usual {
		c.Kernel = append(c.Kernel, KernelMount{Usual: usual, Target: target, ReadOnly: m.ReadOnly, From: m.From})
	}
}

// below returns those of some paths that are in the same file system as a mount, as they
// are called there.
func (k *KernelMount) below(paths []string) (out []string) {
	for _, p := range paths {
		if rest, ok := strings.CutPrefix(p, k.Usual); ok && rest != "" && rest[0] == '/' {
			out = append(out, path.Join(k.Target, rest))
		}
	}
	return out
}

// mountsThat returns what fits, with the paths of all for the fix.
func mountsThat(c *Config, fits func(Mount) bool) (found []Mount, sources string, from []report.Evidence) {
	var names []string
	for _, m := range c.Mounts.Value {
		if fits(m) {
			found = append(found, m)
			from = append(from, m.From)
			names = append(names, m.Source)
		}
	}
	return found, list(names), from
}

// list joins at most a few names.
func list(names []string) string {
	const most = 12
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func checkSocket(c *Config) answer {
	if !c.Mounts.Known {
		return unknown(c.Mounts.Why, c.Mounts.From...)
	}
	found, sources, from := mountsThat(c, func(m Mount) bool { return isSocket(m.Source) })
	switch {
	case len(found) == 0:
		return held("none is mounted", c.Mounts.From...)
	case c.Boundary == UserKernel && !c.OurSandbox:
		return unknown("gVisor connects to sockets of the host if its runtime is set up with --host-uds, which is not written here: "+sources, append(from, c.BoundaryFrom)...)
	case c.Boundary != SharedKernel:
		return notApplicable("a socket's other end is in another kernel, where nothing can connect to it", from...)
	}
	a := leaked("mounted: "+sources, from...)
	a.detail = sources
	return a
}

func checkHostFiles(c *Config) answer {
	if !c.Mounts.Known {
		return unknown(c.Mounts.Why, c.Mounts.From...)
	}
	found, sources, from := mountsThat(c, func(m Mount) bool { system, _ := hostPart(m); return system })
	if len(found) == 0 {
		return held("none is mounted", c.Mounts.From...)
	}
	worst := answer{severity: report.Low}
	for _, m := range found {
		if a := c.hostFile(m); rank(a.severity) < rank(worst.severity) {
			worst = a
		}
	}
	worst.verdict, worst.evidence, worst.detail = report.Leaked, from, sources
	worst.observed = "mounted to read: " + sources
	if slices.ContainsFunc(found, func(m Mount) bool { return !m.ReadOnly }) {
		worst.observed = "mounted to write: " + sources
	}
	return worst
}

// hostFile says what one mount of the host's system leads to.
func (c *Config) hostFile(m Mount) answer {
	_, part := hostPart(m)
	// Root inside a user namespace is somebody without rights to most of it. Our own
	// mounts show the owners that files have.
	other := c.confined() && c.Kind != Bulkhead
	switch {
	case m.ReadOnly && part:
		return answer{severity: report.Medium, consequence: report.Reads, enables: "reading the host's configuration"}
	case m.ReadOnly:
		return answer{severity: report.High, consequence: report.Reads, enables: "reading the host's configuration and secrets, and connecting to sockets"}
	case part && other:
		return answer{severity: report.Medium, consequence: report.Disturbs}
	case part || other:
		return answer{severity: report.High, consequence: report.Disturbs}
	}
	return answer{severity: report.Critical, consequence: report.Takeover}
}

func checkPropagation(c *Config) answer {
	if !c.Mounts.Known {
		return unknown(c.Mounts.Why, c.Mounts.From...)
	}
	_, sources, from := mountsThat(c, func(m Mount) bool { return m.Shared })
	if len(c.SharedRoot) > 0 {
		sources, from = strings.TrimPrefix(sources+", the root file system", ", "), append(from, c.SharedRoot...)
	}
	if len(from) == 0 {
		return held("no mount is shared", c.Mounts.From...)
	}
	if c.Boundary != SharedKernel {
		return notApplicable("mounts are made in another kernel than the host's", from...)
	}
	a := leaked("shared: "+sources, from...)
	a.detail = sources
	return a
}
