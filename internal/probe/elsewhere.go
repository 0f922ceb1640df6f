package probe

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// usualPlaces are where the file systems of the kernel's own files are mounted, so that a
// path there names a file wherever else one of them is.
var usualPlaces = map[string]string{
	"proc": "/proc", "sysfs": "/sys", "debugfs": "/sys/kernel/debug", "tracefs": "/sys/kernel/tracing", "binfmt_misc": "/proc/sys/fs/binfmt_misc",
}

// elsewhere are the other paths that a file of the kernel's has below the mounts of a list:
// masks cover those below /proc and /sys, and not a second mount of the same.
func elsewhere(list []mount, file string) (paths []string) {
	for _, m := range list {
		usual, ok := usualPlaces[m.kind]
		if !ok {
			continue
		}
		whole := path.Join(usual, m.root)
		rest, ok := strings.CutPrefix(file, whole)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		if at := path.Join(m.point, rest); at != file && !slices.Contains(paths, at) {
			paths = append(paths, at)
		}
	}
	return paths
}

// everywhere tries files of the kernel's at their usual paths and below other mounts, of
// which only what is there is evidence. try adds one call.
func (p *prober) everywhere(files []string, try func(file string)) {
	for _, f := range files {
		try(f)
	}
	list, whole, err := mounts()
	for _, f := range files {
		for _, at := range elsewhere(list, f) {
			if len(p.o.Calls) >= maxCalls-1 {
				whole = false
				break
			}
			try(at)
			last := len(p.o.Calls) - 1
			if e := p.o.Calls[last]; e.Errno == "ENOENT" || e.Errno == "ENOTDIR" {
				p.o.Calls = p.o.Calls[:last]
			}
		}
	}
	p.addMounts(whole, err)
}

// judgeEverywhere judges what everywhere tried: shut only where every mount was looked at.
func judgeEverywhere(judge func([]report.Evidence) outcome) func(*view) outcome {
	return func(v *view) outcome {
		calls := slices.DeleteFunc(slices.Clone(v.calls()), func(e report.Evidence) bool { return e.Call == mountsRead })
		out := judge(calls)
		if out.state == shut {
			return seenMounts(v, out)
		}
		for _, e := range calls {
			if _, rest, ok := strings.Cut(e.Call, "("); ok && e.Errno == "" {
				file, _, _ := strings.Cut(strings.TrimSuffix(rest, ")"), ", ")
				out.points = append(out.points, file)
			}
		}
		return out
	}
}

// wholeProcs are where procfs is mounted with all that is in it: /proc, and whatever
// else mountinfo has.
func wholeProcs(list []mount) []string {
	points := []string{"/proc"}
	for _, m := range list {
		if m.kind == "proc" && m.root == "/" && !slices.Contains(points, m.point) {
			points = append(points, m.point)
		}
	}
	return points
}

// kthreaddAt looks for kthreadd below a mount of procfs, "" for none.
func kthreaddAt(point string) (found string, err error) {
	comm, err := beginning(path.Join(point, "2/comm"))
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH):
		return "", nil
	case err != nil:
		return "", err
	case strings.TrimSpace(comm) == "kthreadd":
		return path.Join(point, "2") + " is kthreadd", nil
	}
	return "", nil
}
