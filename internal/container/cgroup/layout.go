package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Mode says which generation of cgroups the machine has mounted.
type Mode string

// The modes. In Hybrid the limits are those of v1, and an almost empty v2
// hierarchy is mounted beside them.
const (
	ModeNone   Mode = "none"
	ModeV1     Mode = "v1"
	ModeHybrid Mode = "hybrid"
	ModeV2     Mode = "v2"
)

const (
	cgroupRoot  = "/sys/fs/cgroup"
	cgroup2Type = 0x63677270 // CGROUP2_SUPER_MAGIC, statfs(2)
)

// Hierarchy is one mounted v1 hierarchy.
type Hierarchy struct {
	// Name is "memory", "cpu,cpuacct" or "name=systemd".
	Name string
	// Controllers are the kernel's names; none in a named hierarchy.
	Controllers []string
	Mount       string // mount point
}

// Layout is where this machine has mounted its cgroup hierarchies. It is a
// value that does not change; Detect reads it once per process.
type Layout struct {
	Mode Mode
	V1   []Hierarchy
	V2   string // mount point of the v2 hierarchy, "" if there is none
	// V2Controllers are those that the v2 hierarchy's root offers.
	V2Controllers []string
}

// Detect finds the cgroup hierarchies of this process's mount namespace. The
// answer is kept: a remount during the life of the process is not seen.
var Detect = sync.OnceValues(detect)

func detect() (*Layout, error) {
	// Pure v2 needs no look at the mount table, which may be thousands of lines
	// on a machine with many containers.
	var st syscall.Statfs_t
	if err := syscall.Statfs(cgroupRoot, &st); err == nil && st.Type == cgroup2Type {
		return newLayout(nil, cgroupRoot)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find the cgroup mounts: %w", err)
	}
	v1, v2 := parseMountinfo(table)
	return newLayout(v1, v2)
}

func newLayout(v1 []Hierarchy, v2 string) (*Layout, error) {
	l := &Layout{V1: v1, V2: v2}
	if v2 != "" {
		list, err := readFile(v2, "cgroup.controllers")
		if err != nil {
			return nil, fmt.Errorf("find the cgroup controllers: %w", err)
		}
		l.V2Controllers = strings.Fields(list)
	}
	switch {
	case len(v1) > 0 && v2 != "":
		l.Mode = ModeHybrid
	case len(v1) > 0:
		l.Mode = ModeV1
	case v2 != "":
		l.Mode = ModeV2
	default:
		l.Mode = ModeNone
	}
	return l, nil
}

// onV1 returns the v1 hierarchy of a controller.
func (l *Layout) onV1(controller string) (Hierarchy, bool) {
	for _, h := range l.V1 {
		if slices.Contains(h.Controllers, controller) {
			return h, true
		}
	}
	return Hierarchy{}, false
}

func (l *Layout) onV2(controller string) bool {
	return slices.Contains(l.V2Controllers, controller)
}

// v1Controllers are the controllers of cgroup v1, cgroups(7), as they appear
// in mount options.
var v1Controllers = []string{
	"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "net_cls",
	"blkio", "perf_event", "net_prio", "hugetlb", "pids", "rdma", "misc",
}

// parseMountinfo finds cgroup mounts in the text of proc_pid_mountinfo(5). A
// hierarchy mounted more than once counts where it lies below /sys/fs/cgroup,
// otherwise where it was mounted first. Malformed lines are passed over.
func parseMountinfo(table []byte) (v1 []Hierarchy, v2 string) {
	for line := range bytes.SplitSeq(table, []byte("\n")) {
		if !bytes.Contains(line, []byte(" - cgroup")) {
			continue
		}
		before, after, _ := strings.Cut(string(line), " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if len(head) < 6 || len(tail) < 3 {
			continue
		}
		mount := unescape(head[4])
		usual := strings.HasPrefix(mount, cgroupRoot+"/")
		switch tail[0] {
		case "cgroup2":
			if v2 == "" || usual && !strings.HasPrefix(v2, cgroupRoot) {
				v2 = mount
			}
		case "cgroup":
			h := hierarchy(tail[2], mount)
			i := slices.IndexFunc(v1, func(x Hierarchy) bool { return x.Name == h.Name })
			switch {
			case h.Name == "":
			case i < 0:
				v1 = append(v1, h)
			case usual && !strings.HasPrefix(v1[i].Mount, cgroupRoot+"/"):
				v1[i] = h
			}
		}
	}
	return v1, v2
}

func hierarchy(options, mount string) Hierarchy {
	h := Hierarchy{Mount: mount}
	var named string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case slices.Contains(v1Controllers, o):
			h.Controllers = append(h.Controllers, o)
		case strings.HasPrefix(o, "name="):
			named = o
		}
	}
	h.Name = strings.Join(h.Controllers, ",")
	if h.Name == "" {
		h.Name = named
	}
	return h
}

// unescape undoes the octal escapes (\040) of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1]) && isOctal(s[i+2]) && isOctal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }
