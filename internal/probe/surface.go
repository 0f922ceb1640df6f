package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/probe/gate"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// Count is how much of something a workload reaches. It is nothing but that: what
// has more calls is not for that reason less safe, and a kernel of one's own is
// attacked by other calls than the host's.
type Count struct {
	ID string `json:"id"`
	N  int    `json:"n"`
	// AtLeast: there was more to look at than the prober looks at.
	AtLeast bool `json:"atLeast,omitempty"`
	// Trouble says why there is no count.
	Trouble string `json:"trouble,omitempty"`
}

// surface is one count, and how it is made.
type surface struct {
	id, name, note string
	count          func(*prober) (n int, more bool, err error)
}

// families are the numbers below AF_MAX of Linux 6.18, linux/socket.h.
const families = 46

// mostFiles is how many files of procfs and sysfs are looked at.
const mostFiles = 50_000

var surfaces = []surface{
	{"surface.calls", "calls past the filter", fmt.Sprintf("system calls of the numbers 0 to %d that the seccomp filter lets pass", gate.Last), countCalls},
	{"surface.sockets", "socket families", fmt.Sprintf("of the %d numbers of families those that the seccomp filter lets pass to socket(2)", families), countFamilies},
	{"surface.capabilities", "capabilities", "effective ones, in the workload's user namespace", countCapabilities},
	{"surface.devices", "device nodes", "below /dev, terminals of /dev/pts left out", countDevices},
	{"surface.writable", "writable kernel files", "regular files below /proc and /sys and other mounts of procfs and sysfs, those of processes left out, that faccessat(W_OK) allows to write; nothing was opened", countWritable},
}

// familyCalls are socket(2) for each family, at the filter.
func familyCalls() []gateCall {
	calls := make([]gateCall, families)
	for n := range calls {
		calls[n] = call(strconv.Itoa(n), unix.SYS_SOCKET, uint64(n), unix.SOCK_STREAM)
	}
	return calls
}

// counts makes all of them.
func counts(p prober) (list []Count) {
	for _, s := range surfaces {
		n, more, err := s.count(&p)
		c := Count{ID: s.id, N: n, AtLeast: more}
		if err != nil {
			c = Count{ID: s.id, Trouble: clean(err.Error())}
		}
		list = append(list, c)
	}
	return list
}

// passing counts verdicts; an unknown one leaves no count.
func passing(results []gate.Result, noGate string) (n int, more bool, err error) {
	if noGate != "" {
		return 0, false, fmt.Errorf("%s", noGate)
	}
	for _, r := range results {
		switch {
		case r.Verdict == gate.Passes:
			n++
		case r.Verdict == gate.Unknown && r.Reason != gate.Unseen:
			return 0, false, fmt.Errorf("%s", r.Reason)
		}
	}
	return n, false, nil
}

func countCalls(p *prober) (int, bool, error) {
	const end = unix.SYS_EXIT_GROUP
	if len(p.table) <= end {
		return passing(p.table, p.noGate)
	}
	// Whoever tries it has ended. It passes: the prober's children end by it.
	n, more, err := passing(slices.Delete(slices.Clone(p.table), end, end+1), p.noGate)
	return n + 1, more, err
}

func countFamilies(p *prober) (int, bool, error) { return passing(p.sockets, p.noGate) }

func countCapabilities(*prober) (int, bool, error) {
	text, err := beginning(statusFile)
	if err != nil {
		return 0, false, err
	}
	set, err := strconv.ParseUint(field(text, "CapEff:"), 16, 64)
	return bits.OnesCount64(set), false, err
}

func countDevices(*prober) (int, bool, error) {
	found, err := devices("/dev")
	found = slices.DeleteFunc(found, func(d device) bool { return strings.HasPrefix(d.id, "c 136:") })
	if errors.Is(err, errMoreDevices) {
		return len(found), true, nil
	}
	return len(found), false, err
}

func countWritable(*prober) (n int, more bool, err error) {
	list, whole, err := mounts()
	if err != nil {
		return 0, false, err
	}
	usual := []string{"/proc", "/sys"}
	roots, procs := kernelRoots(list, usual), wholeProcs(list)
	const automount = "/proc/sys/fs/binfmt_misc" // maybe
	skip := append(elsewhere(list, automount), automount)
	left := mostFiles
	for _, root := range roots {
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil && slices.Contains(usual, path):
				return err
			case err != nil:
				return nil // what cannot be listed cannot be named
			case d.IsDir() && (ofProcess(procs, path) || slices.Contains(skip, path)):
				return fs.SkipDir
			case !d.Type().IsRegular():
				return nil
			case left == 0:
				more = true
				return fs.SkipAll
			}
			left--
			var s unix.Stat_t
			if unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, 0) == nil && unix.Lstat(path, &s) == nil && s.Mode&unix.S_IFMT == unix.S_IFREG {
				n++ // a mask is /dev/null
			}
			return nil
		})
		if err != nil {
			return 0, false, err
		}
	}
	return n, more || !whole, nil
}

// kernelRoots adds to the usual places of procfs and sysfs what else is mounted of them,
// none within another.
func kernelRoots(list []mount, usual []string) []string {
	roots := slices.Clone(usual)
	for _, m := range list {
		within := func(root string) bool { return m.point == root || strings.HasPrefix(m.point, root+"/") }
		name, _, _ := strings.Cut(strings.TrimPrefix(m.root, "/"), "/")
		if (m.kind == "sysfs" || m.kind == "proc" && !ofProcess([]string{"/"}, "/"+name)) && !slices.ContainsFunc(roots, within) {
			roots = append(roots, m.point)
		}
	}
	return roots
}

// ofProcess tells the directories of processes in procfs; self is a link.
func ofProcess(procs []string, path string) bool {
	_, err := strconv.Atoi(filepath.Base(path))
	return err == nil && slices.Contains(procs, filepath.Dir(path))
}

// maxCount is more than anything that is counted.
const maxCount = 1 << 20

// checkCounts finds fault with what no prober says.
func checkCounts(list []Count) error {
	seen := map[string]bool{}
	for _, c := range list {
		if !slices.ContainsFunc(surfaces, func(s surface) bool { return s.id == c.ID }) || seen[c.ID] || c.N < 0 || c.N > maxCount {
			return fmt.Errorf("%w: the count %.80q", report.ErrMalformed, c.ID)
		}
		seen[c.ID] = true
		if err := report.CheckText(c.Trouble, maxText); err != nil {
			return err
		}
	}
	return nil
}

// measures are the counts in the words of reports. They are the workload's word.
func measures(o *Observations, reason string) (list []report.Measure) {
	for _, s := range surfaces {
		m := report.Measure{ID: s.id, Name: s.name, Unit: report.Number, Better: report.Less, Reason: reason}
		if o != nil {
			m.Reason = "the prober did not count it"
			if n := slices.IndexFunc(o.Surface, func(c Count) bool { return c.ID == s.id }); n >= 0 {
				m.Reason = o.Surface[n].Trouble
				if m.Reason == "" {
					m.Samples, m.Note = []float64{float64(o.Surface[n].N)}, s.note
					if o.Surface[n].AtLeast {
						m.Note += "; there are more"
					}
				}
			}
		}
		m.Reason = clean(m.Reason)
		list = append(list, m)
	}
	return list
}
