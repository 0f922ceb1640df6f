package cgroup

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxDepth bounds how deep a tree of child cgroups is followed. The kernel
// has no limit of its own but memory; a path of PATH_MAX has at most half as
// many components.
const maxDepth = 2048

// Pids returns the processes of the cgroup, sorted, as this process's PID
// namespace numbers them; with recursive also those of child cgroups.
// Processes of another PID namespace are not seen. A cgroup that does not
// exist has none.
func (m *Manager) Pids(recursive bool) ([]int, error) {
	seen := make(map[int]bool)
	for _, dir := range m.dirs() {
		if err := addPids(seen, dir, recursive); err != nil {
			return nil, err
		}
	}
	pids := make([]int, 0, len(seen))
	for p := range seen {
		pids = append(pids, p)
	}
	slices.Sort(pids)
	return pids, nil
}

func addPids(seen map[int]bool, dir string, recursive bool) error {
	visit := func(dir string) error {
		text, err := readFile(dir, "cgroup.procs")
		if errors.Is(err, syscall.EOPNOTSUPP) { // a threaded cgroup of v2
			text, err = readFile(dir, "cgroup.threads")
		}
		if err != nil {
			return ignoreGone(err)
		}
		for line := range strings.FieldsSeq(text) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
				seen[pid] = true
			}
		}
		return nil
	}
	if !recursive {
		return visit(dir)
	}
	return walk(dir, 0, visit)
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// walk visits dir and all cgroups below it, children first. Directories that
// vanish meanwhile are passed over.
func walk(dir string, depth int, visit func(dir string) error) error {
	if depth > maxDepth {
		return &os.PathError{Op: "walk", Path: dir, Err: syscall.ELOOP}
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !gone(err) {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := walk(dir+"/"+e.Name(), depth+1, visit); err != nil {
				return err
			}
		}
	}
	return visit(dir)
}
