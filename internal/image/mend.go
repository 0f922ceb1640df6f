package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// A layer may bring "tmp/x" without an entry for "tmp". The image then has the
// "tmp" of the layers below, mode 1777 perhaps, but overlayfs would show the
// attributes of the topmost directory of that name, which unpacking had to
// invent. Since layers are shared between images, the right attributes cannot
// be written into the layer: they depend on what lies below.
//
// So a chain that has this case gets one more directory right above the layer.
// It holds nothing but those directories, with the attributes from below:
//
//	layers/A/fs/tmp        1777
//	layers/B/fs/tmp/x            tmp invented: 0755
//	mended/CHAIN/fs/tmp    1777
//
// The directory is found by the chain ID. One without "fs" says that there is
// nothing to mend. The root of the image is mended likewise.

// mend returns the extra directory for a layer above lower, lowest first, or
// "" when none is needed.
//
// Precondition: op has pinned the chain.
func (s *Store) mend(op *Op, chain digest.Digest, m mender) (string, error) {
	dir := s.path("mended", chain.Encoded())
	tree := filepath.Join(dir, treeDir)
	if _, err := os.Lstat(dir); err == nil {
		if _, err := os.Lstat(tree); err != nil {
			return "", nil
		}
		return tree, nil
	}
	implied, err := readImplied(m.implied)
	if err != nil {
		return "", err
	}
	staging, err := os.MkdirTemp(op.dir, "mend-")
	if err != nil {
		return "", err
	}
	m.out = filepath.Join(staging, treeDir)
	if err := m.run(implied); err != nil {
		return "", fmt.Errorf("mend the directories of %s: %w", m.own, err)
	}
	if err := syncTree(staging); err != nil {
		return "", err
	}
	err = os.Rename(staging, dir)
	if err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTEMPTY) {
		return "", err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return "", err
	}
	return s.mend(op, chain, m)
}

// readImplied reads a layer's list of directories without an entry. A layer
// without such has no list.
func readImplied(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var implied []string
	if err := json.Unmarshal(raw, &implied); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	return implied, nil
}

func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return at.Syncfs(f)
}

// mender builds one extra directory. Its paths consist of real directories
// only, each opened by name without following links.
type mender struct {
	own     string   // the layer's tree
	implied string   // file that lists its directories without an entry
	lower   []string // trees, lowest first
	root    string   // tree whose root has the right attributes; "" for own
	out     string
}

func (m *mender) run(implied []string) error {
	type pair struct {
		path string
		from string // tree that has the attributes
	}
	var todo []pair
	hidden := make(map[string]bool) // below these the layer hides the others
	for _, p := range implied {
		parent := filepath.Dir(p)
		isHidden := hidden[parent]
		if !isHidden {
			opaque, err := isOpaque(m.own, p)
			if err != nil {
				return err
			}
			isHidden = opaque
		}
		if isHidden {
			hidden[p] = true
			continue
		}
		from, err := m.find(p)
		if err != nil {
			return err
		}
		if from == "" {
			hidden[p] = true // nothing below it either
			continue
		}
		todo = append(todo, pair{p, from})
	}
	made := make(map[string]bool)
	if m.root != "" {
		if err := m.makeParents(".", made); err != nil {
			return err
		}
	}
	for _, t := range todo {
		if err := m.makeParents(filepath.Dir(t.path), made); err != nil {
			return err
		}
		if !made[t.path] {
			if err := os.Mkdir(filepath.Join(m.out, t.path), 0o700); err != nil {
				return err
			}
			made[t.path] = true
		}
	}
	// Attributes last, children first: making a directory changes its parent's time.
	source := map[string]string{".": m.root}
	for _, t := range todo {
		source[t.path] = t.from
	}
	return m.copyAll(made, source)
}

// makeParents makes m.out and the directories on the way.
func (m *mender) makeParents(path string, made map[string]bool) error {
	if made[path] {
		return nil
	}
	if path != "." {
		if err := m.makeParents(filepath.Dir(path), made); err != nil {
			return err
		}
	}
	made[path] = true
	return os.Mkdir(filepath.Join(m.out, path), 0o700)
}

func (m *mender) copyAll(made map[string]bool, source map[string]string) error {
	paths := make([]string, 0, len(made))
	for p := range made {
		paths = append(paths, p)
	}
	for _, p := range paths {
		from := source[p]
		if from == "" {
			from = m.own // a parent that the layer has an entry for
		}
		if err := copyAttributes(from, m.out, p); err != nil {
			return err
		}
	}
	return nil
}

// find tells which lower tree has the directory path, as overlayfs merges
// them; "" when it is not there or no directory.
func (m *mender) find(path string) (string, error) {
	comps := strings.Split(path, "/")
	for i := len(m.lower) - 1; i >= 0; i-- {
		st, last, err := look(m.lower[i], comps)
		if err != nil {
			return "", err
		}
		if st == found {
			return m.lower[i], nil
		}
		if last {
			return "", nil
		}
	}
	return "", nil
}

type lookResult int

const (
	absent lookResult = iota
	found
)

// look walks one tree. last says that lower trees do not count any more: a
// whiteout, an opaque directory or a file is in the way.
func look(tree string, comps []string) (res lookResult, last bool, err error) {
	fd, err := openTree(tree)
	if err != nil {
		return absent, false, err
	}
	defer func() { at.Close(fd) }()
	for _, name := range comps {
		st, err := at.Lstat(fd, name)
		if errors.Is(err, os.ErrNotExist) {
			return absent, last, nil
		}
		if err != nil {
			return absent, false, err
		}
		if st.Mode&at.TypeMask != at.TypeDir {
			return absent, true, nil
		}
		next, err := at.OpenDir(fd, name)
		if err != nil {
			return absent, false, err
		}
		at.Close(fd)
		fd = next
		if v, err := at.Lgetxattr(fd, ".", unpack.OpaqueXattr); err == nil && string(v) == "y" {
			last = true
		}
	}
	return found, last, nil
}

func isOpaque(tree, path string) (bool, error) {
	res, opaque, err := look(tree, strings.Split(path, "/"))
	return res == found && opaque, err
}

func openTree(tree string) (int, error) {
	return at.OpenDir(atCwd, tree)
}

// atCwd stands for "no directory": the path is absolute.
const atCwd = -100

// copyAttributes gives the directory path of tree to what the one of tree
// from has.
func copyAttributes(from, to, path string) error {
	src, err := openPath(from, path)
	if err != nil {
		return err
	}
	defer at.Close(src)
	dst, err := openPath(to, path)
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
		if strings.HasPrefix(n, "trusted.overlay.") || strings.HasPrefix(n, "security.") {
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

func openPath(tree, path string) (int, error) {
	fd, err := openTree(tree)
	if err != nil || path == "." {
		return fd, err
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := at.OpenDir(fd, name)
		at.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}
