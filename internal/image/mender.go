package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// mender builds one extra directory. Paths within trees are slash-separated,
// with "." for the root, and consist of real directories: every tree is walked
// by name from its root, without following links.
type mender struct {
	own     string   // the layer's tree
	implied string   // file that lists its directories without an entry
	lower   []string // trees, lowest first
	root    string   // tree whose root has the right attributes; "" for own
	out     string
	lookUps *lookUps

	noEntry map[string]bool   // the directories of implied
	made    map[string]origin // directories of out
	copied  map[string]bool   // symbolic links of out that are those from below
}

// origin says where a made directory gets its attributes from.
type origin struct{ tree, path string }

func (m *mender) run(implied []string) error {
	m.noEntry, m.made, m.copied = make(map[string]bool, len(implied)), make(map[string]origin), make(map[string]bool)
	for _, p := range implied {
		m.noEntry[p] = true
	}
	if m.root != "" {
		if err := m.mkdir(".", origin{m.root, "."}); err != nil {
			return err
		}
	}
	done := make(map[string]bool) // nothing below these needs mending
	for _, p := range implied {   // parents first
		if done[filepath.Dir(p)] {
			done[p] = true
			continue
		}
		skip, err := m.mendOne(p)
		if err != nil {
			return err
		}
		done[p] = skip
	}
	for p, from := range m.made { // last: making a file changes its directory's time
		if err := m.copyAttributes(from, origin{m.out, p}); err != nil {
			return err
		}
	}
	return nil
}

// mendOne looks at one directory without an entry. skip says that what lies
// below it is settled as well.
func (m *mender) mendOne(p string) (skip bool, err error) {
	own, err := m.look(m.own, p)
	if err != nil || own.within {
		return true, err // what the others have is hidden
	}
	below, err := m.find(p)
	if err != nil {
		return true, err
	}
	switch {
	case below.kind == at.TypeDir:
		// An opaque one hides what is in the others, and has the attributes of theirs.
		return own.opaque, m.mkdir(p, origin{below.tree, p})
	case below.kind == at.TypeSymlink && !own.opaque:
		return true, m.redirect(p, below.tree)
	}
	return true, nil // the directory is new, or replaces a file
}

// mkdir makes a directory in out, with its parents.
func (m *mender) mkdir(p string, from origin) error {
	if _, ok := m.made[p]; ok {
		return nil
	}
	if p != "." {
		if err := m.mkdirParent(p); err != nil {
			return err
		}
	}
	m.made[p] = from
	path := filepath.Join(m.out, p)
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, os.ErrExist) { // a file, or a link: what made it went by another way
		if err = os.Remove(path); err == nil {
			err = os.Mkdir(path, 0o700)
		}
	}
	var pathErr *os.PathError
	if errors.As(err, &pathErr) { // the store's path tells nobody anything
		return fmt.Errorf("directory %q: %w", p, pathErr.Err)
	}
	return err
}

// mkdirParent makes the directory that p lies in.
func (m *mender) mkdirParent(p string) error {
	parent := filepath.Dir(p)
	if _, ok := m.made[parent]; ok {
		return nil
	}
	from, err := m.attributesOf(parent)
	if err != nil {
		return err
	}
	return m.mkdir(parent, from)
}

// attributesOf tells whose attributes a directory of the image has: the
// layer's, if it has an entry for it, or else those from below.
func (m *mender) attributesOf(p string) (origin, error) {
	own, err := m.look(m.own, p)
	if err != nil || own.kind == at.TypeDir && !m.noEntry[p] && p != "." {
		return origin{m.own, p}, err
	}
	if p == "." {
		if m.root != "" {
			return origin{m.root, p}, nil
		}
		return origin{m.own, p}, nil
	}
	below, err := m.find(p)
	if err != nil || below.kind == at.TypeDir {
		return origin{below.tree, p}, err
	}
	if own.kind == at.TypeDir {
		return origin{m.own, p}, nil
	}
	return origin{m.own, "."}, nil // nobody has it: any plain directory will do
}

// redirect puts what the layer has in the directory p where the link p of a
// lower tree leads. An entry that reached p by another way, through a link in
// front of it, has replaced the link: a directory then shows what the layer has.
func (m *mender) redirect(p, tree string) error {
	if _, ok := m.made[p]; ok {
		return nil
	}
	dest, ok, err := m.resolve(p)
	if err != nil || !ok {
		return err
	}
	if err := m.graft(p, dest); err != nil {
		return err
	}
	if err := m.mkdirParent(p); err != nil {
		return err
	}
	return m.copyLink(tree, p)
}

// copyLink makes the symbolic link p of tree in out.
func (m *mender) copyLink(tree, p string) error {
	src, err := m.openPath(tree, filepath.Dir(p))
	if err != nil {
		return err
	}
	defer at.Close(src)
	dst, err := m.openPath(m.out, filepath.Dir(p))
	if err != nil {
		return err
	}
	defer at.Close(dst)
	name := filepath.Base(p)
	st, err := at.Lstat(src, name)
	if err != nil {
		return err
	}
	target, err := at.Readlink(src, name)
	if err != nil {
		return err
	}
	err = at.Symlink(target, dst, name)
	if errors.Is(err, os.ErrExist) {
		return nil // an entry that came by another way has replaced it
	}
	if err != nil {
		return err
	}
	m.copied[p] = true
	if err := at.Chown(dst, name, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return at.Chtimes(dst, name, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

// graft links the files of the layer's directory p into the directory dest of
// out. Directories are made anew, since they cannot be linked.
func (m *mender) graft(p, dest string) error {
	from, err := m.attributesOf(dest)
	if err != nil {
		return err
	}
	if err := m.mkdir(dest, from); err != nil {
		return err
	}
	src, err := m.openPath(m.own, p)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(src), p)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		st, err := at.Lstat(src, name)
		if err != nil {
			return err
		}
		if st.Mode&at.TypeMask == at.TypeDir {
			err = m.graftDir(join(p, name), join(dest, name))
		} else {
			err = m.link(src, name, dest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *mender) graftDir(p, dest string) error {
	if !m.noEntry[p] {
		if err := m.mkdir(dest, origin{m.own, p}); err != nil {
			return err
		}
		m.made[dest] = origin{m.own, p}
		if own, err := m.look(m.own, p); err != nil || !own.opaque {
			return errors.Join(err, m.graft(p, dest))
		}
		fd, err := m.openPath(m.out, dest)
		if err != nil {
			return err
		}
		defer at.Close(fd)
		if err := at.Fsetxattr(fd, unpack.OpaqueXattr, []byte("y")); err != nil {
			return err
		}
		return m.graft(p, dest)
	}
	next, ok, err := m.resolve(dest)
	if err != nil || !ok {
		return err
	}
	return m.graft(p, next)
}

func (m *mender) link(src int, name, dest string) error {
	dst, err := m.openPath(m.out, dest)
	if err != nil {
		return err
	}
	defer at.Close(dst)
	err = at.Link(src, name, dst, name)
	if p := join(dest, name); errors.Is(err, os.ErrExist) && m.copied[p] {
		// The entry replaces the link.
		delete(m.copied, p)
		if err = at.Remove(dst, name); err == nil {
			err = at.Link(src, name, dst, name)
		}
	}
	if errors.Is(err, os.ErrExist) {
		return nil // two links lead here, and both bring the file
	}
	return err
}

// resolve follows the links in p through the lower trees, with the image as
// root. ok is false where it leads to something that is no directory.
func (m *mender) resolve(p string) (dest string, ok bool, err error) {
	var cur []string
	rest := strings.Split(p, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			cur = cur[:max(0, len(cur)-1)]
			continue
		}
		next := strings.Join(append(slices.Clone(cur), name), "/")
		below, err := m.find(next)
		if err != nil {
			return "", false, err
		}
		switch below.kind {
		case at.TypeDir, 0:
			cur = append(cur, name)
		case at.TypeSymlink:
			if links++; links > 40 { // as the kernel
				return "", false, nil
			}
			target, err := m.readlink(below.tree, next)
			if err != nil {
				return "", false, err
			}
			if strings.HasPrefix(target, "/") {
				cur = nil
			}
			rest = append(strings.Split(target, "/"), rest...)
			if len(rest) > 1024 {
				return "", false, nil
			}
		default:
			return "", false, nil
		}
	}
	if len(cur) == 0 {
		return ".", true, nil
	}
	dest = strings.Join(cur, "/")
	own, err := m.look(m.own, dest)
	// Where the layer has a file in the way, its directory shows instead.
	return dest, own.kind == at.TypeDir || own.kind == 0 && !own.blocked, err
}

func (m *mender) readlink(tree, p string) (string, error) {
	fd, err := m.openPath(tree, filepath.Dir(p))
	if err != nil {
		return "", err
	}
	defer at.Close(fd)
	return at.Readlink(fd, filepath.Base(p))
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}
