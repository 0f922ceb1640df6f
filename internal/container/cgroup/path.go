package cgroup

import (
	"fmt"
	"path"
	"strings"
)

const (
	maxPath = 3072 // leaves room for mount point and file name below PATH_MAX
	maxName = 255  // NAME_MAX
)

// DefaultBase is where relative paths are taken to start.
const DefaultBase = "/bulkhead"

// ParsePath turns a cgroupsPath of the runtime spec into a clean absolute
// path below the root of each hierarchy.
//
// An absolute path is kept, a relative one starts at base. ".." is resolved
// within the path itself, before base is put in front, so that it can leave
// neither. The root cgroup is refused: it cannot be limited or removed.
func ParsePath(s, base string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("cgroup path: empty")
	}
	clean := path.Clean("/" + s)
	if clean == "/" {
		return "", fmt.Errorf("cgroup path %q: the root cgroup cannot be a workload's", s)
	}
	if !path.IsAbs(s) {
		if base == "" {
			base = DefaultBase
		}
		clean = path.Join(path.Clean("/"+base), clean)
	}
	if len(clean) > maxPath {
		return "", fmt.Errorf("cgroup path: %d bytes, more than %d", len(clean), maxPath)
	}
	for name := range strings.SplitSeq(clean[1:], "/") {
		if err := checkName(name); err != nil {
			return "", fmt.Errorf("cgroup path %q: %w", s, err)
		}
	}
	return clean, nil
}

func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("a component of %d bytes, more than %d", len(name), maxName)
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return fmt.Errorf("control character in %q", name)
		}
	}
	return nil
}

// ParseSystemdPath turns the form "slice:prefix:name", which callers use with
// --systemd-cgroup, into the path that systemd would choose:
// "user-1000.slice:docker:ID" is /user.slice/user-1000.slice/docker-ID.scope
// (systemd.slice(5)). No unit is made: the directories are ours, so on a
// machine whose systemd manages the slice it must delegate it. An empty slice
// is system.slice, an empty prefix leaves the name alone.
func ParseSystemdPath(s string) (string, error) {
	part := strings.Split(s, ":")
	if len(part) != 3 {
		return "", fmt.Errorf("cgroup path %q: want slice:prefix:name", s)
	}
	slice, prefix, name := part[0], part[1], part[2]
	if slice == "" {
		slice = "system.slice"
	}
	dir, err := expandSlice(slice)
	if err != nil {
		return "", fmt.Errorf("cgroup path %q: %w", s, err)
	}
	if name == "" || strings.ContainsAny(prefix+name, "/") {
		return "", fmt.Errorf("cgroup path %q: want a unit name without a slash", s)
	}
	unit := name
	if !strings.HasSuffix(name, ".slice") {
		if prefix != "" {
			unit = prefix + "-" + name
		}
		unit += ".scope"
	}
	return ParsePath(dir+"/"+unit, "")
}

// expandSlice gives the path of a slice: each dash is a level.
func expandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", fmt.Errorf("%q is not the name of a slice", slice)
	}
	if name == "-" {
		return "/", nil
	}
	var dir, unit string
	for i, word := range strings.Split(name, "-") {
		if word == "" {
			return "", fmt.Errorf("%q is not the name of a slice", slice)
		}
		if i > 0 {
			unit += "-"
		}
		unit += word
		dir += "/" + unit + ".slice"
		if len(dir) > maxPath {
			return "", fmt.Errorf("slice name of %d bytes is too deep", len(slice))
		}
	}
	return dir, nil
}
