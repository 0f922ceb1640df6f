package audit

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// engineSockets are names of sockets whose owner can start anything on the host.
var engineSockets = []string{
	"docker.sock", "containerd.sock", "crio.sock", "podman.sock", "libvirt-sock", "buildkitd.sock", "k3s.sock",
}

// engineDirs hold them, or what is as good.
var engineDirs = []string{
	"/run/docker", "/run/containerd", "/run/containers", "/run/podman", "/run/crio", "/run/libvirt", "/run/bulkhead", "/var/lib/bulkhead", "/var/lib/docker",
	"/var/lib/containerd", "/var/lib/containers",
}

// systemDirs are directories that the host runs on, with their parts if whole is set.
var systemDirs = []struct {
	path  string
	whole bool
}{
	{"/", false}, {"/bin", true}, {"/boot", true}, {"/dev", false}, {"/etc", true}, {"/home", false}, {"/lib", true}, {"/lib64", true}, {"/opt", false},
	{"/proc", true}, {"/root", true}, {"/run", false}, {"/sbin", true}, {"/sys", true}, {"/usr", true}, {"/var", false}, {"/var/lib", false},
	{"/var/log", false}, {"/var/spool/cron", true}, {"/var/lib/kubelet", true},
}

// harmless are files of the host that engines and people mount everywhere.
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
	return isEngineDir(p) && !strings.Contains(p, "/volumes/") && !isEngineFile(p)
}

func isEngineDir(source string) bool {
	return slices.ContainsFunc(engineDirs, func(d string) bool { return below(hostPath(source), d) })
}

// isEngineFile tells the files that an engine itself mounts into a container.
func isEngineFile(p string) bool {
	base := path.Base(p)
	return slices.Contains([]string{"resolv.conf", "hostname", "hosts", ".containerenv", "shm", "secrets"}, base)
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
	readOnly := true
	found, sources, from := mountsThat(c, func(m Mount) bool {
		p := hostPath(m.Source)
		if isSocket(p) || slices.ContainsFunc(harmless, func(h string) bool { return below(p, h) }) {
			return false
		}
		return slices.ContainsFunc(systemDirs, func(d struct {
			path  string
			whole bool
		}) bool {
			return p == d.path || d.whole && below(p, d.path)
		})
	})
	if len(found) == 0 {
		return held("none is mounted", c.Mounts.From...)
	}
	for _, m := range found {
		readOnly = readOnly && m.ReadOnly
	}
	a := leaked("mounted to write: "+sources, from...)
	a.detail = sources
	switch {
	case readOnly:
		a.observed, a.severity, a.consequence = "mounted to read: "+sources, report.High, report.Reads
		a.enables = "reading the host's configuration and secrets, and connecting to sockets"
	case c.confined() && c.Kind != Bulkhead:
		// Root inside is somebody without rights to most of it. Our own mounts show
		// the owners that files have.
		a.severity, a.consequence = report.High, report.Disturbs
	}
	return a
}

func checkPropagation(c *Config) answer {
	if !c.Mounts.Known {
		return unknown(c.Mounts.Why, c.Mounts.From...)
	}
	found, sources, from := mountsThat(c, func(m Mount) bool { return m.Shared })
	if len(found) == 0 {
		return held("no mount is shared", c.Mounts.From...)
	}
	if c.Boundary != SharedKernel {
		return notApplicable("mounts are made in another kernel than the host's", from...)
	}
	a := leaked("shared: "+sources, from...)
	a.detail = sources
	return a
}
