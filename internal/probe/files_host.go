package probe

import (
	"os"
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// hostDirectories are those that a host runs on, and files of the kind. What is below
// one is somebody's data or configuration unless it is here, too.
var hostDirectories = []string{
	"/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/root", "/run", "/sbin", "/tmp", "/usr", "/var",
	"/etc/cron.d", "/etc/crontab", "/etc/kubernetes", "/etc/ld.so.preload", "/etc/pam.d", "/etc/passwd", "/etc/shadow", "/etc/ssh", "/etc/sudoers",
	"/etc/sudoers.d", "/etc/systemd", "/root/.ssh", "/run/bulkhead", "/run/containerd", "/run/crio", "/run/dbus", "/run/docker", "/run/podman",
	"/run/systemd", "/run/user", "/usr/bin", "/usr/lib", "/usr/lib/systemd", "/usr/local/bin", "/usr/local/sbin", "/usr/sbin",
	"/var/lib", "/var/lib/bulkhead", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet", "/var/log", "/var/run",
	"/var/spool", "/var/spool/cron", "/var/tmp",
}

// SystemDirectory tells which of the directories that a host runs on a path of it is,
// by whatever name; "" for none of them, or a path that leads nowhere.
func SystemDirectory(source string) string {
	is, err := os.Stat(source)
	if err != nil {
		return ""
	}
	for _, dir := range hostDirectories {
		if there, err := os.Stat(dir); err == nil && os.SameFile(is, there) {
			return dir
		}
	}
	return ""
}

// signs tell some of them where the line of a mount cannot, because the directory is
// the root of a file system: a partition, /run, or what a machine's file server shows.
var signs = []struct {
	dir   string
	names []string
}{
	{"/", []string{"etc/passwd", "proc", "usr", "var"}},
	{"/etc", []string{"group", "passwd", "shadow"}},
	{"/run", []string{"lock", "systemd"}},
	{"/usr", []string{"bin", "lib", "local", "share"}},
	{"/var", []string{"cache", "lib", "log", "spool"}},
}

// hostDirectory says which directory of the host a mount is, "" for none of them. One
// that looks like what belongs at its place, such as a volume for an image's /var, is
// none; nor is the root of another container, which is an overlay.
func hostDirectory(m *mount) string {
	if !m.carries() {
		return ""
	}
	if m.root != "/" {
		for _, source := range m.sources() {
			if slices.Contains(hostDirectories, source) {
				return source + " of " + m.kind + ", " + m.access()
			}
		}
		return ""
	}
	if m.kind == "overlay" {
		return ""
	}
	for _, s := range signs {
		if m.point == s.dir || m.point == "/var"+s.dir {
			continue
		}
		if !slices.ContainsFunc(s.names, func(name string) bool {
			_, err := os.Lstat(path.Join(m.point, name))
			return err != nil
		}) {
			return "a " + m.kind + " with what " + s.dir + " has, " + m.access()
		}
	}
	return ""
}

// observeHostFile looks which mounts are the host's directories, and for each file at
// its path and below every mount, as it would be if the host's root, or a directory
// above the file, were mounted there.
func observeHostFile(p *prober) {
	list, whole, err := mounts()
	if err != nil {
		list = nil // then at their own paths alone
	}
	found := 0
	for n := range list {
		what := hostDirectory(&list[n])
		if what == "" {
			continue
		}
		if found++; found > maxCalls/2 {
			whole = false
			break
		}
		p.add(mountCall(list[n].point), what, nil)
	}
	p.addMounts(whole, err)
	if p.targets.Token == "" {
		return
	}
	for _, f := range p.targets.Files {
		lookFor(p, f, list)
	}
}

func mountCall(point string) string { return mountPrefix + point + ")" }

const mountPrefix = "mount("

// lookFor tries a file's path and what may be left of it below each mount.
func lookFor(p *prober, file string, list []mount) {
	try := func(f string) bool {
		text, err := beginning(f)
		if err == nil && strings.TrimSpace(text) != p.targets.Token {
			err = unix.ENOENT // another file of that name
		}
		if err == nil {
			p.add(readCall(f), "the host's token", nil)
		}
		return err == nil
	}
	if try(file) || try(path.Join("/proc/1/root", file)) {
		return
	}
	for _, m := range list {
		for _, rest := range ends(file) {
			if try(path.Join(m.point, rest)) {
				return
			}
		}
	}
	p.add(readCall(file), "", unix.ENOENT)
}

// ends are a path, and what is left of it without its first directory, without its
// first two, and so on.
func ends(file string) (list []string) {
	for rest := strings.TrimPrefix(file, "/"); rest != ""; _, rest, _ = strings.Cut(rest, "/") {
		list = append(list, rest)
	}
	return list
}

// knownHarmless tells a mount that was asked for, of a directory that the host does not
// run on: its place in its own file system is no path of the host's.
func (v *view) knownHarmless(point string) bool {
	d := v.context.Declared
	return d != nil && slices.ContainsFunc(d.Binds, func(b Bind) bool { return b.Target == point && b.System == "" })
}

// judgeHostFile: a directory of the host that is mounted, or the file that was put up
// there, opens the door. Where none was put up nobody knows what else is within reach.
func judgeHostFile(v *view) outcome {
	var read []report.Evidence
	var found, points []string
	for _, e := range v.calls() {
		point, ok := strings.CutPrefix(e.Call, mountPrefix)
		switch {
		case e.Call == mountsRead:
		case !ok:
			read = append(read, e)
			if e.Errno == "" {
				points = append(points, strings.TrimSuffix(strings.TrimPrefix(e.Call, "read("), ")"))
			}
		case e.Errno == "":
			point = strings.TrimSuffix(point, ")")
			if v.knownHarmless(point) {
				continue
			}
			found, points = append(found, point+" is "+e.Value), append(points, point)
		}
	}
	out := isUnclear("no file was put up on the host to look for: give --context with one")
	if t := &v.context.Targets; len(t.Files) > 0 && t.Token != "" {
		out = attempts(read)
	}
	if len(found) > 0 && out.state == open {
		found = append(found, out.observed)
	}
	switch {
	case len(found) > 0:
		out = isOpen(list(found))
	case out.state == shut:
		return seenMounts(v, out)
	}
	out.points = points
	return out
}
