// Package pss counts the memory of processes by proportional set size: what a
// process shares with others counts in equal parts, so that sums are right.
package pss

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Process is what /proc tells of one.
type Process struct {
	PID, Parent int
	Start       string // with PID, unique since boot
	Name        string // of the executable
	Command     string // with spaces between its words
	Cgroup      string // the text of /proc/PID/cgroup
	PIDNS       string // its process namespace
	PSS         int64  // bytes
}

// Processes are all of a moment, by PID. Kernel threads, and processes that ended
// while they were read, are left out.
type Processes map[int]Process

// Snapshot reads all processes. It needs the right to read their memory maps.
func Snapshot() (Processes, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	all := Processes{}
	for _, d := range dirs {
		if p, ok := read(d); ok {
			all[p.PID] = p
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no process in /proc")
	}
	return all, nil
}

func read(dir string) (Process, bool) {
	var p Process
	p.PID, _ = strconv.Atoi(filepath.Base(dir))
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, false
	}
	// The name in parentheses may hold anything; the fields follow the last one.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 20 {
		return p, false
	}
	p.Parent, _ = strconv.Atoi(f[1])
	p.Start = f[19]
	exe, err := os.Readlink(dir + "/exe")
	if err != nil {
		return p, false
	}
	p.Name = filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
	command, _ := os.ReadFile(dir + "/cmdline")
	p.Command = string(bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
	cgroup, _ := os.ReadFile(dir + "/cgroup")
	p.Cgroup = string(cgroup)
	p.PIDNS, _ = os.Readlink(dir + "/ns/pid")
	rollup, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return p, false
	}
	for line := range strings.Lines(string(rollup)) {
		if kb, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(kb)[0], 10, 64)
			p.PSS = n << 10
		}
	}
	return p, true
}

// Has reports whether p was there already.
func (all Processes) Has(p Process) bool {
	old, ok := all[p.PID]
	return ok && old.Start == p.Start
}

// Names reports whether p has one of the IDs in its command line or cgroup.
func (p *Process) Names(ids ...string) bool {
	return slices.ContainsFunc(ids, func(id string) bool {
		return id != "" && (strings.Contains(p.Command, id) || strings.Contains(p.Cgroup, id))
	})
}

// Owned are the processes that name one of the IDs, and those below them, in the
// order of their PIDs.
func (all Processes) Owned(ids ...string) []Process {
	var owned []Process
	for _, p := range all {
		if all.Below(p, func(p *Process) bool { return p.Names(ids...) }) {
			owned = append(owned, p)
		}
	}
	slices.SortFunc(owned, func(a, b Process) int { return a.PID - b.PID })
	return owned
}

// Below reports whether p, or one that it descends from, is what is looked for.
func (all Processes) Below(p Process, is func(*Process) bool) bool {
	for range 64 { // deeper than any real tree, in case of a loop of reused IDs
		if is(&p) {
			return true
		}
		up, ok := all[p.Parent]
		if !ok {
			return false
		}
		p = up
	}
	return false
}
