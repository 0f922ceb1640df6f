package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
)

// subCgroup finds the cgroup that exec --cgroup names below the container's:
// PATH for all hierarchies or, on cgroup v1, CONTROLLERS:PATH for some.
func (b *box) subCgroup(given []string) (*cgroup.Manager, error) {
	m, err := b.cgroup()
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errors.New("exec --cgroup: the container has no cgroup")
	}
	for _, g := range given {
		controllers, sub, some := strings.Cut(g, ":")
		var list []string
		if some {
			list = strings.Split(controllers, ",")
		} else {
			sub = g
		}
		if m, err = m.Below(sub, list...); err != nil {
			return nil, fmt.Errorf("exec --cgroup: %w", err)
		}
	}
	for _, dir := range m.Paths() {
		if _, err := filepath.EvalSymlinks(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("exec --cgroup: error adding pid of the new process to cgroup %s: %w", m.Path(), err)
		}
	}
	return m, nil
}
