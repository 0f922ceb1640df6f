package probe

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// mount is one line of /proc/self/mountinfo, proc_pid_mountinfo(5).
type mount struct {
	root, point, options, kind, super string
	shared                            bool
}

const mountinfo = "/proc/self/mountinfo"

// mounts reads the mounts of this process. More than a limit are left out, and
// told.
func mounts() (list []mount, whole bool, err error) {
	text, err := beginning(mountinfo)
	if err != nil {
		return nil, false, err
	}
	list, whole = parseMounts(text)
	return list, whole && len(text) < 64<<10, nil
}

// cutShort is what is written down where not every mount was looked at.
const cutShort = "cut short"

// addMounts writes down that mountinfo was read, for seenMounts.
func (p *prober) addMounts(whole bool, err error) {
	value := ""
	if err == nil && !whole {
		value = cutShort
	}
	p.add(mountsRead, value, err)
}

// seenMounts is out, of a door that is shut where every mount was looked at, and
// unclear where not.
func seenMounts(v *view, out outcome) outcome {
	e, ok := v.call(mountsRead)
	switch {
	case !ok || e.Errno != "":
		return isUnclear(mountinfo + " cannot be read: " + first(e.Errno, "it was not tried"))
	case e.Value == cutShort:
		return isUnclear(mountinfo + " is longer than what is read of it, or has lines that make no sense")
	}
	return out
}

// kernelKinds are file systems that show a kernel's own state, and nothing that lies on
// a host's disks.
var kernelKinds = []string{
	"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs",
	"proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
}

// carries reports whether a mount may bring files from somewhere else: it is not the
// root, and not a file system of the kernel's.
func (m *mount) carries() bool { return m.point != "/" && !slices.Contains(kernelKinds, m.kind) }

// access is "ro" or "rw".
func (m *mount) access() string {
	if slices.Contains(strings.Split(m.options, ","), "ro") {
		return "ro"
	}
	return "rw"
}

// sources are the paths on the host that the root of a mount may have there: the line
// tells it within its file system, of which /run is one, and what a subvolume of btrfs
// is called on most systems is no directory.
func (m *mount) sources() []string {
	root := path.Clean("/" + m.root)
	switch m.kind {
	case "tmpfs":
		return []string{root, path.Join("/run", root)}
	case "btrfs":
		for _, volume := range []string{"/@", "/@rootfs", "/root"} {
			if rest, ok := strings.CutPrefix(root, volume); ok && (rest == "" || rest[0] == '/') {
				return []string{root, path.Clean("/" + rest)}
			}
		}
	}
	return []string{root}
}

// parseMounts takes lines apart; whole is false where one makes no sense. Fields end at a
// space and at nothing else: of what is in a name the kernel writes space, tab, newline
// and backslash by their numbers (mangle_path() of fs/seq_file.c), and no other space
// that Unicode has.
func parseMounts(text string) (list []mount, whole bool) {
	whole = true
	for line := range strings.Lines(text) {
		front, back, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, b := strings.Split(front, " "), strings.Split(back, " ")
		if !ok || len(f) < 6 || b[0] == "" {
			whole = false
			continue
		}
		m := mount{root: unescape(f[3]), point: unescape(f[4]), options: f[5], kind: b[0], super: b[len(b)-1]}
		for _, tag := range f[6:] {
			m.shared = m.shared || strings.HasPrefix(tag, "shared:")
		}
		list = append(list, m)
	}
	return list, whole
}

// unescape undoes the kernel's \040 and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
