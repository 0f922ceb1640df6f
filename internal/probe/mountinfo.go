package probe

import (
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
