package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// seen is what one tree, or a stack of trees, has at a path.
type seen struct {
	tree string
	kind uint32 // a Type constant of package at; 0 when there is nothing
	// opaque is set when the path, or a directory on the way, hides the lower
	// trees.
	opaque bool
	// blocked is set when a whiteout or a file on the way does.
	blocked bool
}

// find looks a path up as overlayfs merges the lower trees.
func (m *mender) find(path string) (seen, error) {
	for i := len(m.lower) - 1; i >= 0; i-- {
		s, err := look(m.lower[i], path)
		if err != nil || s.kind != 0 {
			return s, err
		}
		if s.opaque || s.blocked {
			break
		}
	}
	return seen{}, nil
}

// look looks a path up in one tree, following no link.
func look(tree, path string) (s seen, err error) {
	s.tree = tree
	fd, err := openTree(tree)
	if err != nil {
		return s, err
	}
	defer func() { at.Close(fd) }()
	if path == "." {
		s.kind = at.TypeDir
		return s, nil
	}
	comps := strings.Split(path, "/")
	for i, name := range comps {
		st, err := at.Lstat(fd, name)
		if errors.Is(err, os.ErrNotExist) {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		if kind := st.Mode & at.TypeMask; kind != at.TypeDir {
			s.blocked = at.IsWhiteout(st) || i < len(comps)-1
			if !s.blocked {
				s.kind = kind
			}
			return s, nil
		}
		next, err := at.OpenDir(fd, name)
		if err != nil {
			return s, err
		}
		at.Close(fd)
		fd = next
		if v, err := at.Lgetxattr(fd, ".", unpack.OpaqueXattr); err == nil && string(v) == "y" {
			s.opaque = true
		}
	}
	s.kind = at.TypeDir
	return s, nil
}

// atCwd stands for "no directory" in front of an absolute path (AT_FDCWD).
const atCwd = -100

func openTree(tree string) (int, error) { return at.OpenDir(atCwd, tree) }

// openPath opens a directory of a tree, following no link.
func openPath(tree, path string) (int, error) {
	fd, err := openTree(tree)
	if err != nil || path == "." {
		return fd, err
	}
	for name := range strings.SplitSeq(filepath.ToSlash(path), "/") {
		next, err := at.OpenDir(fd, name)
		at.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// copyAttributes gives one directory the owner, mode, times and extended
// attributes of another, but for overlayfs' own and the host's labels.
func copyAttributes(from, to origin) error {
	src, err := openPath(from.tree, from.path)
	if err != nil {
		return err
	}
	defer at.Close(src)
	dst, err := openPath(to.tree, to.path)
	if err != nil {
		return err
	}
	defer at.Close(dst)
	st, err := at.Fstat(src)
	if err != nil {
		return err
	}
	if err := at.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := at.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	names, err := at.Llistxattr(src, ".")
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, "trusted.") || strings.HasPrefix(n, "security.") {
			continue
		}
		v, err := at.Lgetxattr(src, ".", n)
		if err != nil {
			return err
		}
		if err := at.Fsetxattr(dst, n, v); err != nil {
			return err
		}
	}
	return at.Chtimes(dst, ".", time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}
