package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// DefaultLookUps bounds how many names are looked up to mend the directories of
// one image. Names, layers and depth of paths multiply, each of them at its
// limit, while an image of a hundred thousand such directories needs some
// millions. docs/images.md and SPECIFICATION.md repeat it.
const DefaultLookUps = 50_000_000

// WithLookUps replaces DefaultLookUps.
func WithLookUps(n int) Option { return func(s *Store) { s.lookUps = n } }

// lookUps counts the names that are looked up for one image.
type lookUps struct {
	ctx   context.Context
	most  int
	count int
}

// one counts a name.
func (l *lookUps) one() error {
	if l.count++; l.count > l.most {
		return fmt.Errorf("%w: directories without an entry need more than %d look-ups in the layers below", unpack.ErrLimit, l.most)
	}
	return l.ctx.Err()
}

// seen is what one tree, or a stack of trees, has at a path.
type seen struct {
	tree string
	kind uint32 // a Type constant of package at; 0 when there is nothing
	// opaque is set when the path, or a directory on the way, hides the lower
	// trees.
	opaque bool
	// within is set when a directory on the way does.
	within bool
	// blocked is set when a whiteout or a file on the way does.
	blocked bool
}

// find looks a path up as overlayfs merges the lower trees.
func (m *mender) find(path string) (seen, error) {
	for i := len(m.lower) - 1; i >= 0; i-- {
		s, err := m.look(m.lower[i], path)
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
func (m *mender) look(tree, path string) (s seen, err error) {
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
		if err := m.lookUps.one(); err != nil {
			return s, err
		}
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
			s.opaque, s.within = true, s.within || i < len(comps)-1
		}
	}
	s.kind = at.TypeDir
	return s, nil
}

func openTree(tree string) (int, error) { return at.OpenDir(at.CWD, tree) }

// openPath opens a directory of a tree, following no link.
func (m *mender) openPath(tree, path string) (int, error) {
	fd, err := openTree(tree)
	if err != nil || path == "." {
		return fd, err
	}
	for name := range strings.SplitSeq(filepath.ToSlash(path), "/") {
		next, err := -1, m.lookUps.one()
		if err == nil {
			next, err = at.OpenDir(fd, name)
		}
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
func (m *mender) copyAttributes(from, to origin) error {
	src, err := m.openPath(from.tree, from.path)
	if err != nil {
		return err
	}
	defer at.Close(src)
	dst, err := m.openPath(to.tree, to.path)
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
