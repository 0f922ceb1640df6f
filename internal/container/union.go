package container

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// unionTree looks at the directories of an overlay as overlayfs will show
// them, before the mount exists: upper layers cover lower ones, whiteouts
// (character devices 0:0) remove, opaque directories end the search. The
// mounts that package container makes never store redirects
// (redirect_dir=off), so there are none to follow.
type unionTree struct {
	layers []dirTree            // highest first
	stacks map[string][]dirTree // directories that were looked into
	opened *[]int               // descriptors for the planner to close
}

func newUnionTree(l *Layers, opened *[]int) (*unionTree, error) {
	u := &unionTree{stacks: map[string][]dirTree{}, opened: opened}
	dirs := []string{}
	if l.Upper != "" {
		dirs = append(dirs, l.Upper)
	}
	for i := len(l.Lower) - 1; i >= 0; i-- {
		dirs = append(dirs, l.Lower[i])
	}
	for _, d := range dirs {
		fd, err := unix.Open(d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: d, Err: err}
		}
		*opened = append(*opened, fd)
		u.layers = append(u.layers, dirTree{fd, d})
	}
	u.stacks[""] = u.layers
	return u, nil
}

// stack returns the directories that make up rel, highest first, none when
// rel is not a directory.
func (u *unionTree) stack(rel string) ([]dirTree, error) {
	if s, ok := u.stacks[rel]; ok {
		return s, nil
	}
	dir, base := path.Split(rel)
	parents, err := u.stack(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return nil, err
	}
	var out []dirTree
	for _, p := range parents {
		fd, err := unix.Openat(p.fd, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			break // a whiteout or another kind of file covers the rest
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path.Join(p.name, base), Err: err}
		}
		*u.opened = append(*u.opened, fd)
		out = append(out, dirTree{fd, path.Join(p.name, base)})
		if opaque(fd) {
			break
		}
	}
	u.stacks[rel] = out
	return out, nil
}

// opaque reports whether a directory hides those of lower layers.
func opaque(fd int) bool {
	var b [1]byte
	n, err := unix.Getxattr("/proc/self/fd/"+itoa(fd), "trusted.overlay.opaque", b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// find returns the layer's directory that holds rel, and its base name.
func (u *unionTree) find(rel string) (dirTree, string, *unix.Stat_t, error) {
	dir, base := path.Split(rel)
	parents, err := u.stack(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return dirTree{}, "", nil, err
	}
	for _, p := range parents {
		var st unix.Stat_t
		err := unix.Fstatat(p.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return dirTree{}, "", nil, &fs.PathError{Op: "stat", Path: path.Join(p.name, base), Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			break // whiteout
		}
		return p, base, &st, nil
	}
	return dirTree{}, "", nil, &fs.PathError{Op: "stat", Path: rel, Err: fs.ErrNotExist}
}

func (u *unionTree) lstat(rel string) (fs.FileMode, string, error) {
	if rel == "" {
		return fs.ModeDir | 0o755, "", nil
	}
	d, base, st, err := u.find(rel)
	if err != nil {
		return 0, "", err
	}
	mode := fileMode(st.Mode)
	if mode&fs.ModeSymlink == 0 {
		return mode, "", nil
	}
	return dirTree{d.fd, d.name}.lstat(base)
}

func (u *unionTree) open(rel string) (*os.File, error) {
	d, base, _, err := u.find(rel)
	if err != nil {
		return nil, err
	}
	return d.open(base)
}

// opener is a tree whose files can be read.
type opener interface {
	open(rel string) (*os.File, error)
}

// notStored are file systems whose files are answers of the kernel, or of a
// program of the container's: reading one may wait for ever, or tell us, being
// root, what the container must not learn (/proc/kmsg).
var notStored = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
	unix.TRACEFS_MAGIC, unix.FUSE_SUPER_MAGIC,
}

// open opens a regular file for reading. Anything else is refused before it is
// opened: a FIFO would wait, a device may do something, and a terminal could
// become the one that controls this process.
func (d dirTree) open(rel string) (*os.File, error) {
	name := path.Join(d.name, rel)
	how := beneath
	at, err := unix.Openat2(d.fd, rel, &how)
	if err != nil {
		return nil, &fs.PathError{Op: "openat2", Path: name, Err: err}
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	var where unix.Statfs_t
	if err := unix.Fstatfs(at, &where); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || slices.Contains(notStored, where.Type) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	fd, err := unix.Open("/proc/self/fd/"+itoa(at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// open follows p in the view and opens the file there for reading.
func (v *view) open(p string) (*os.File, error) {
	loc, err := v.resolve(p)
	if err != nil {
		return nil, err
	}
	if len(loc.missing) > 0 {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	src, rel := v.lookup(loc.path)
	if l, ok := src.(*layeredTree); ok {
		src = l.below
	}
	o, ok := src.(opener)
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return o.open(rel)
}
