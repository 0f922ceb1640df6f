package container

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// view answers what a path inside the container will lead to once the mounts
// planned so far are in place. The planner uses it to find mount points,
// missing directories, users and programs before anything is made. What it
// says is checked again by the kernel when the program runs: the resolved
// paths are opened with RESOLVE_NO_SYMLINKS and RESOLVE_BENEATH, so a tree that
// somebody changes in between (a volume shared with a running workload) makes
// the start fail and cannot redirect a mount.
type view struct {
	mounts []viewMount // later ones cover earlier ones
}

type viewMount struct {
	at  string // resolved absolute path
	src tree
}

// tree is one file system of a view. Paths are relative and resolved: no
// symbolic link in them but possibly the last component, no "..".
type tree interface {
	// lstat describes a path; link is a symbolic link's target. It fails with
	// an error that Is fs.ErrNotExist where nothing is.
	lstat(rel string) (mode fs.FileMode, link string, err error)
}

func (v *view) mount(at string, src tree) { v.mounts = append(v.mounts, viewMount{at, src}) }

// lookup finds the mount that holds the resolved path p.
func (v *view) lookup(p string) (tree, string) {
	m, rel := v.holder(p)
	return m.src, rel
}

// holder is lookup with the whole mount.
func (v *view) holder(p string) (viewMount, string) {
	best, rel := viewMount{}, ""
	for _, m := range v.mounts {
		r, under := within(m.at, p)
		if under && len(m.at) >= len(best.at) {
			best, rel = m, r
		}
	}
	return best, rel
}

// within returns p relative to dir when it is dir or below it.
func within(dir, p string) (string, bool) {
	if dir == "/" {
		return strings.TrimPrefix(p, "/"), true
	}
	if p == dir {
		return "", true
	}
	return strings.CutPrefix(p, dir+"/")
}

// location is where a path leads.
type location struct {
	path    string // absolute, no symbolic links
	mode    fs.FileMode
	missing []string // components that do not exist below path
	crossed bool     // a symbolic link was followed
	// volumes are the mounts, other than the root, whose symbolic links were
	// followed: whoever shares a volume chose those.
	volumes []string
}

// left is the first mount whose own links led out of it, "" for none.
func (l location) left() string {
	for _, at := range l.volumes {
		if _, under := within(at, l.full()); !under {
			return at
		}
	}
	return ""
}

const maxLinks = 40 // as the kernel's path_resolution(7)

// resolve follows p from the container's root, symbolic links and all.
func (v *view) resolve(p string) (location, error) {
	loc := location{path: "/", mode: fs.ModeDir | 0o755}
	todo := split(p)
	for links := 0; len(todo) > 0; {
		c := todo[0]
		todo = todo[1:]
		if c == ".." {
			loc.path, loc.mode = path.Dir(loc.path), fs.ModeDir|0o755
			continue
		}
		if !loc.mode.IsDir() {
			return location{}, &fs.PathError{Op: "resolve", Path: p, Err: syscall.ENOTDIR}
		}
		next := path.Join(loc.path, c)
		m, rel := v.holder(next)
		mode, link, err := m.src.lstat(rel)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			rest := append([]string{c}, todo...)
			for _, r := range rest {
				if r == ".." {
					return location{}, &fs.PathError{Op: "resolve", Path: p, Err: syscall.ENOENT}
				}
			}
			loc.missing = rest
			return loc, nil
		case err != nil:
			return location{}, err
		case mode&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return location{}, &fs.PathError{Op: "resolve", Path: p, Err: syscall.ELOOP}
			}
			loc.crossed = true
			if m.at != "/" {
				loc.volumes = append(loc.volumes, m.at)
			}
			if strings.HasPrefix(link, "/") {
				loc.path, loc.mode = "/", fs.ModeDir|0o755
			}
			todo = append(split(link), todo...)
		default:
			loc.path, loc.mode = next, mode
		}
	}
	return loc, nil
}

// full is the path with its missing components.
func (l location) full() string { return path.Join(append([]string{l.path}, l.missing...)...) }

func split(p string) []string {
	var out []string
	for _, c := range strings.Split(p, "/") {
		if c != "" && c != "." {
			out = append(out, c)
		}
	}
	return out
}

// dirTree is a directory of the host, by descriptor. It is not the view's to
// close.
type dirTree struct {
	fd   int
	name string // for errors
}

var beneath = unix.OpenHow{
	Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
	Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
}

func (d dirTree) lstat(rel string) (fs.FileMode, string, error) {
	if rel == "" {
		rel = "."
	}
	how := beneath
	// The last component may be a link: open its parent without links first.
	dir, base := path.Split(rel)
	parent := d.fd
	if dir != "" {
		fd, err := unix.Openat2(d.fd, path.Clean(dir), &how)
		if err != nil {
			return 0, "", &fs.PathError{Op: "openat2", Path: d.name + "/" + dir, Err: err}
		}
		defer unix.Close(fd)
		parent = fd
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, "", &fs.PathError{Op: "stat", Path: d.name + "/" + rel, Err: err}
	}
	mode := fileMode(st.Mode)
	if mode&fs.ModeSymlink == 0 {
		return mode, "", nil
	}
	var where unix.Statfs_t
	if err := unix.Fstatfs(parent, &where); err != nil {
		return 0, "", &fs.PathError{Op: "statfs", Path: d.name + "/" + rel, Err: err}
	}
	if dir != "" && where.Type == unix.PROC_SUPER_MAGIC {
		// Such as /proc/self/fd/3: it leads where a descriptor does, and for us
		// elsewhere than for the container. The text is not even a path inside.
		return 0, "", &fs.PathError{Op: "follow a magic link at", Path: d.name + "/" + rel, Err: unix.ELOOP}
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, base, buf)
	if err != nil {
		return 0, "", &fs.PathError{Op: "readlink", Path: d.name + "/" + rel, Err: err}
	}
	return mode, string(buf[:n]), nil
}

func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for _, b := range specialBits {
		if m&b.unix != 0 {
			mode |= b.mode
		}
	}
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	}
	return mode
}

// freshTree is a file system that the program makes: it holds what the program
// puts there. The zero value is an empty directory.
type freshTree struct {
	entries map[string]freshEntry
}

type freshEntry struct {
	mode fs.FileMode
	link string
}

func (t *freshTree) put(rel string, mode fs.FileMode, link string) {
	if t.entries == nil {
		t.entries = map[string]freshEntry{}
	}
	t.entries[rel] = freshEntry{mode, link}
}

func (t *freshTree) lstat(rel string) (fs.FileMode, string, error) {
	if rel == "" {
		return fs.ModeDir | 0o755, "", nil
	}
	e, ok := t.entries[rel]
	if !ok {
		return 0, "", &fs.PathError{Op: "stat", Path: rel, Err: fs.ErrNotExist}
	}
	return e.mode, e.link, nil
}

// layeredTree is a tree to which the program adds entries, such as mount
// points.
type layeredTree struct {
	below tree
	added freshTree
}

func (t *layeredTree) lstat(rel string) (fs.FileMode, string, error) {
	if e, ok := t.added.entries[rel]; ok {
		return e.mode, e.link, nil
	}
	return t.below.lstat(rel)
}

// fileTree is a file mounted over a file.
type fileTree struct{ mode fs.FileMode }

func (t fileTree) lstat(rel string) (fs.FileMode, string, error) {
	if rel != "" {
		return 0, "", fmt.Errorf("%s: %w", rel, syscall.ENOTDIR)
	}
	return t.mode, "", nil
}

// specialBits are the permissions beyond rwx, chmod(2).
var specialBits = []struct {
	unix uint32
	mode fs.FileMode
}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}}

// permissions are the bits of chmod(2) in mode.
func permissions(mode fs.FileMode) uint32 {
	m := uint32(mode.Perm())
	for _, b := range specialBits {
		if mode&b.mode != 0 {
			m |= b.unix
		}
	}
	return m
}
