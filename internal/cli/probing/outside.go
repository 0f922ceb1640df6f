package probing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/ociruntime"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// outside is what the host sees of a workload whose first process, or sandbox, is
// pid: what its kernel says of that process, and which limits its cgroup has. What
// cannot be read is evidence, too.
func outside(pid int, s workload.Spec) []probe.Observation {
	proc := "/proc/" + strconv.Itoa(pid)
	groups, err := groupsOf(proc)
	list := []probe.Observation{
		look("namespaces.uid-map", probe.SeenUIDMap, func() (string, error) { return lines(filepath.Join(proc, "uid_map")) }),
		look("limits.oom-score", probe.SeenOOMScore, func() (string, error) { return lines(filepath.Join(proc, "oom_score_adj")) }),
	}
	for _, l := range limits {
		list = append(list, look(l.probe, l.call, func() (string, error) {
			if err != nil {
				return "", err
			}
			return groups.tightest(l)
		}))
	}
	if s.Boundary == "gvisor" {
		list = append(list, look("kernel.own", probe.SeenPrograms, func() (string, error) {
			if err != nil {
				return "", err
			}
			return groups.programs(s.Runtime.Path)
		}))
	}
	return list
}

func look(id, call string, read func() (string, error)) probe.Observation {
	value, err := read()
	e := report.Evidence{Call: call, Value: value}
	if err != nil {
		e.Errno, e.Value = "error", err.Error()
	}
	return probe.Observation{Probe: id, Calls: []report.Evidence{e}}
}

// lines are those of a small file, with commas between them.
func lines(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	list := strings.Split(strings.TrimSpace(string(b)), "\n")
	for n := range list {
		list[n] = strings.Join(strings.Fields(list[n]), " ")
	}
	return strings.Join(list, ", "), nil
}

// limit is where a limit is written down: in which files of version 1 and 2.
type limit struct {
	probe, call, controller string
	v1                      []string
	v2                      string
}

var limits = []limit{
	{"limits.processes", probe.SeenPids, "pids", []string{"pids.max"}, "pids.max"},
	{"limits.memory", probe.SeenMemory, "memory", []string{"memory.limit_in_bytes"}, "memory.max"},
	{"limits.processors", probe.SeenQuota, "cpu", []string{"cpu.cfs_quota_us", "cpu.cfs_period_us"}, "cpu.max"},
}

// groups are a process's places in the host's hierarchies: a mount point and a
// path below it, by controller; "" is that of version 2.
type groups map[string]place

type place struct{ mount, path string }

// groupsOf reads /proc/PID/cgroup (cgroups(7)).
func groupsOf(proc string) (groups, error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if err != nil {
		return nil, err
	}
	return parseGroups(string(b), layout)
}

func parseGroups(text string, layout *cgroup.Layout) (groups, error) {
	found := groups{}
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		// The kernel writes ".." for what lies above the root of a cgroup namespace.
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") || slices.Contains(strings.Split(f[2], "/"), "..") {
			return nil, fmt.Errorf("the workload's cgroup %.200q cannot be reached from here", line)
		}
		if f[1] == "" {
			found[""] = place{layout.V2, f[2]}
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			for _, h := range layout.V1 {
				if slices.Contains(h.Controllers, c) {
					found[c] = place{h.Mount, f[2]}
				}
			}
		}
	}
	return found, nil
}

// tightest is the lowest limit of a process's cgroup and those above it.
func (g groups) tightest(l limit) (string, error) {
	at, files := g[l.controller], l.v1
	if at.mount == "" {
		at, files = g[""], []string{l.v2}
	}
	if at.mount == "" {
		return "", fmt.Errorf("no cgroup hierarchy with the controller %s", l.controller)
	}
	least, text := 0.0, ""
	for path := at.path; ; path = filepath.Dir(path) {
		value, err := read(filepath.Join(at.mount, path), files)
		if errors.Is(err, os.ErrNotExist) && path != at.path {
			break // a root has no limits
		}
		if err != nil {
			return "", err
		}
		if n, finite := amount(value); finite && (text == "" || n < least) {
			least, text = n, value
		}
		if path == "/" {
			break
		}
	}
	if text == "" {
		return probe.Unlimited, nil
	}
	return text, nil
}

func read(dir string, files []string) (string, error) {
	var words []string
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return "", err
		}
		words = append(words, strings.TrimSpace(string(b)))
	}
	return strings.Join(words, " "), nil
}

// unlimitedMemory is where memory.limit_in_bytes ends: the greatest number, rounded
// down to pages, whatever their size.
const unlimitedMemory = 1<<63 - 1<<16

// amount compares limits: a number, or a quota with its period. Without a limit
// finite is false.
func amount(value string) (n float64, finite bool) {
	first, period, quota := strings.Cut(value, " ")
	a, err := strconv.ParseInt(first, 10, 64)
	if err != nil || a < 0 || a >= unlimitedMemory {
		return 0, false
	}
	if !quota {
		return float64(a), true
	}
	p, err := strconv.ParseFloat(period, 64)
	return float64(a) / p, err == nil && p > 0
}

// programs are the names of the programs that the processes of the workload's
// cgroup run: probe.SeenSentry where all of them are the runtime's own file.
func (g groups) programs(runtime string) (string, error) {
	if runtime == "" {
		var err error
		if runtime, err = ociruntime.Find(probe.SeenSentry); err != nil {
			return "", err
		}
	}
	want, err := os.Stat(runtime)
	if err != nil {
		return "", err
	}
	at := g["pids"]
	if at.mount == "" {
		at = g[""]
	}
	b, err := os.ReadFile(filepath.Join(at.mount, at.path, "cgroup.procs"))
	if err != nil {
		return "", err
	}
	var others []string
	seen := 0
	for pid := range strings.FieldsSeq(string(b)) {
		exe := filepath.Join("/proc", pid, "exe")
		got, err := os.Stat(exe)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue // it has ended
		case err != nil:
			return "", err
		}
		seen++
		if name, err := os.Readlink(exe); err == nil && !os.SameFile(want, got) && !slices.Contains(others, name) {
			others = append(others, name)
		}
	}
	switch {
	case seen == 0:
		return "", errors.New("no process is in the workload's cgroup")
	case len(others) > 0:
		return strings.Join(others, ", "), nil
	}
	return probe.SeenSentry, nil
}
