package cgroup

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

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
	visit := func(parent int, dir string) error {
		text, err := readFileAt(parent, dir, "cgroup.procs")
		if errors.Is(err, syscall.EOPNOTSUPP) { // a threaded cgroup of v2
			text, err = readFileAt(parent, dir, "cgroup.threads")
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
		return visit(at.CWD, dir)
	}
	return walk(dir, visit)
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// walk visits dir and all cgroups below it, children first, each as a name in a
// directory that is open. Directories that vanish meanwhile are passed over.
//
// A workload may nest its cgroups deeper than any path is long and deeper than
// there are descriptors, so one directory is open at a time: the kernel leads back
// to its parent, and no cgroup can be moved to another.
func walk(dir string, visit func(parent int, dir string) error) error {
	type level struct {
		name string
		left []string // children to come
	}
	parent := at.CWD
	defer func() { closeAt(parent) }()
	var above []level // of the directories from dir to the one that is open
	next := dir
	for {
		// Down to a directory.
		fd, left, err := children(parent, next)
		if err == nil {
			closeAt(parent)
			parent, above = fd, append(above, level{next, left})
		} else if err := ignoreGone(err); err != nil {
			return err
		} else if err := visit(parent, next); err != nil {
			return err
		}
		// And up, as long as there is nothing left to go down to.
		for len(above) > 0 && len(above[len(above)-1].left) == 0 {
			done := above[len(above)-1].name
			above = above[:len(above)-1]
			up := at.CWD
			if len(above) > 0 {
				if up, err = at.Open(parent, "..", syscall.O_RDONLY|syscall.O_DIRECTORY); err != nil {
					return err
				}
			}
			closeAt(parent)
			parent = up
			if err := visit(parent, done); err != nil {
				return err
			}
		}
		if len(above) == 0 {
			return nil
		}
		last := &above[len(above)-1]
		next, last.left = last.left[0], last.left[1:]
	}
}

func closeAt(fd int) {
	if fd != at.CWD {
		syscall.Close(fd)
	}
}

// children opens a directory and lists the directories in it.
func children(parent int, dir string) (int, []string, error) {
	fd, err := at.Open(parent, dir, syscall.O_RDONLY|syscall.O_DIRECTORY)
	if err != nil {
		return -1, nil, err
	}
	dup, err := at.Open(fd, ".", syscall.O_RDONLY|syscall.O_DIRECTORY)
	if err != nil {
		syscall.Close(fd)
		return -1, nil, err
	}
	f := os.NewFile(uintptr(dup), dir)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err = ignoreGone(err); err != nil {
		syscall.Close(fd)
		return -1, nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return fd, names, nil
}
