package main

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
)

// subCgroup finds the cgroup that exec --cgroup names, below the container's.
func (b *box) subCgroup(given []string) (*cgroup.Manager, error) {
	for _, g := range given {
		controllers, sub, split := strings.Cut(g, ":")
		if !split {
			controllers, sub = "", g
		}
		if controllers != "" {
			return nil, errors.New("exec --cgroup: a path for some controllers only is not supported by this runtime")
		}
		if err := checkSubCgroup(sub); err != nil {
			return nil, err
		}
	}
	if len(given) > 1 {
		return nil, usagef("exec --cgroup: more than one path")
	}
	return cgroup.Load(path.Join(b.Cgroup, given[0]), cgroup.Options{})
}

// checkSubCgroup refuses a path that leads out of the container's cgroup.
func checkSubCgroup(sub string) error {
	for _, part := range strings.Split(sub, "/") {
		if part == ".." {
			return fmt.Errorf("bad sub cgroup path: %q leads out of the container's cgroup", sub)
		}
	}
	return nil
}
