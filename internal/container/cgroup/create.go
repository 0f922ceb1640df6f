package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// made are the directories that one Create made, in order.
type made []string

// undo removes them again, newest first. A parent that another workload uses
// by now is busy, and stays.
func (l made) undo() {
	for _, dir := range slices.Backward(l) {
		_ = syscall.Rmdir(dir)
	}
}

// Create makes the cgroup in every hierarchy and puts limits and device rules
// in force. A directory that is there already is used if it holds no process
// and is not frozen; otherwise the error wraps ErrPopulated or ErrFrozen, the
// latter also where an ancestor is frozen. On error every directory that this call
// made is gone again. What stays are controllers enabled in ancestors that others
// own.
func (m *Manager) Create() error {
	var l made
	err := m.create(&l)
	if err != nil {
		l.undo()
		return fmt.Errorf("make cgroup %s: %w", m.path, noAccess(err))
	}
	return nil
}

func (m *Manager) create(l *made) error {
	for _, d := range m.v1 {
		if err := l.mkdirAll(d.Mount, m.path); err != nil {
			return err
		}
		if slices.Contains(d.Controllers, "cpuset") {
			if err := fillCpuset(d.Mount, d.dir); err != nil {
				return err
			}
		}
	}
	if m.v2 != "" {
		if err := l.mkdirAll(m.lay.V2, m.path); err != nil {
			return err
		}
	}
	if !slices.Equal(m.lastMade(*l), m.dirs()) {
		if err := m.checkEmpty(); err != nil {
			return err
		}
	}
	// By an ancestor, a cgroup is frozen from its beginning.
	frozen, err := m.Frozen()
	if err != nil {
		return err
	}
	if frozen {
		return ErrFrozen
	}
	// Not sooner: enabled controllers stay, and where they are no process can be put.
	if m.v2 != "" {
		if err := m.enable(); err != nil {
			return err
		}
	}
	return m.apply()
}

// lastMade returns those directories of m that are in l.
func (m *Manager) lastMade(l made) []string {
	return slices.DeleteFunc(m.dirs(), func(d string) bool { return !slices.Contains(l, d) })
}

// mkdirAll makes a path below a mount point. Another process may remove a
// parent that it thinks unused between two of our steps: then we start again.
func (l *made) mkdirAll(mount, below string) error {
	const tries = 100
	for range tries {
		err := l.mkdir(mount + below)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for i := 1; i < len(below); i++ {
			if below[i] != '/' {
				continue
			}
			if err = l.mkdir(mount + below[:i]); err != nil {
				break
			}
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return &os.PathError{Op: "mkdir", Path: mount + below, Err: syscall.ENOENT}
}

func (l *made) mkdir(dir string) error {
	err := syscall.Mkdir(dir, 0o755)
	switch {
	case err == nil:
		*l = append(*l, dir)
		return nil
	case err != syscall.EEXIST:
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return &os.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	return nil
}

// fillCpuset gives a v1 cpuset the processors and memory nodes of its parent
// where it has none, ancestors first: attaching to an empty cpuset fails with
// ENOSPC, cpuset(7).
func fillCpuset(mount, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if _, err := fillCpusetFile(mount, dir, file); err != nil {
			return err
		}
	}
	return nil
}

func fillCpusetFile(mount, dir, file string) (string, error) {
	text, err := readFile(dir, file)
	if err != nil {
		return "", err
	}
	if list := strings.TrimSpace(text); list != "" || dir == mount {
		return list, nil
	}
	list, err := fillCpusetFile(mount, path.Dir(dir), file)
	if err != nil {
		return "", err
	}
	return list, writeFile(dir, file, list)
}

// enable makes the controllers that the limits need available in the v2
// directory, by enabling them in every ancestor that does not have them yet.
// Those that only statistics want are enabled where that is possible.
func (m *Manager) enable() error {
	kind, err := readFile(m.v2, "cgroup.type")
	if err != nil {
		return err
	}
	if kind = strings.TrimSpace(kind); kind != "domain" {
		return fmt.Errorf("%s is %q, not a domain: an ancestor is threaded", m.v2, kind)
	}
	need := v2Needs(m.limits)
	all := wanted(m.lay)
	for c := range need {
		if !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	slices.Sort(all)
	have, err := readFile(m.v2, "cgroup.controllers")
	if err != nil {
		return err
	}
	if len(missingFrom(all, have)) == 0 {
		return nil
	}
	for i := 0; i < len(m.path); i++ {
		if m.path[i] == '/' {
			if err := enableIn(m.lay.V2+m.path[:i], i == 0, all, need); err != nil {
				return err
			}
		}
	}
	return nil
}

func missingFrom(controllers []string, have string) []string {
	fields := strings.Fields(have)
	var list []string
	for _, c := range controllers {
		if !slices.Contains(fields, c) {
			list = append(list, c)
		}
	}
	return list
}

// enableIn enables controllers for the children of one directory. need maps
// those that must be enabled to the limit that asks for them.
//
// Nothing is enabled in a cgroup with processes. For most controllers the
// kernel refuses it anyway; for cpu and pids it would silently turn the cgroup
// into the root of a threaded subtree, in which no process can be put into
// ours.
func enableIn(dir string, top bool, controllers []string, need map[string]string) error {
	enabled, err := readFile(dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	add := missingFrom(controllers, enabled)
	if len(add) == 0 {
		return nil
	}
	offered, err := readFile(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	for _, c := range missingFrom(add, offered) {
		if limit, ok := need[c]; ok {
			return &MissingError{limit, c, "it was not handed down to " + dir}
		}
		add = slices.DeleteFunc(add, func(x string) bool { return x == c })
	}
	if len(add) == 0 {
		return nil
	}
	members := ""
	if !top {
		if members, err = readFile(dir, "cgroup.procs"); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
			return err
		}
	}
	if members == "" {
		err = writeFile(dir, "cgroup.subtree_control", "+"+strings.Join(add, " +"))
	} else {
		err = &os.PathError{Op: "enable controllers in", Path: dir, Err: syscall.EBUSY}
	}
	if err == nil {
		return nil
	}
	for _, c := range add {
		limit, ok := need[c]
		switch {
		case !ok:
		case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EOPNOTSUPP):
			return &MissingError{limit, c, "processes live in " + dir + ", which v2 forbids above limited cgroups"}
		default:
			return &MissingError{limit, c, noAccess(err).Error()}
		}
	}
	return nil // only statistics are the poorer for it
}

// checkEmpty refuses a directory that was there before and has processes.
func (m *Manager) checkEmpty() error {
	pids, err := m.Pids(true)
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("%w: %d of them", ErrPopulated, len(pids))
	}
	return nil
}
