package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// A layer may bring "tmp/x" without an entry for "tmp". The image then has the
// "tmp" of the layers below, mode 1777 perhaps, but overlayfs would show the
// attributes of the topmost directory of that name, which unpacking had to
// invent. Since layers are shared between images, the right attributes cannot
// be written into the layer: they depend on what lies below.
//
// So a chain that has this case gets one more directory right above the layer.
// It holds those directories, with the attributes from below:
//
//	layers/A/fs/tmp        1777
//	layers/B/fs/tmp/x            tmp invented: 0755
//	mended/CHAIN/fs/tmp    1777
//
// The directory is found by the chain ID. One without "fs" says that there is
// nothing to mend. The root of the image is mended likewise.
//
// Where the layers below have a symbolic link of that name, to "usr/tmp" say,
// the files belong where it leads: the extra directory then has the link again,
// and "usr/tmp" with hard links to the layer's files. Such files show one link
// too many; nothing else tells them apart.

// mend returns the extra directory for a layer above lower, lowest first, or
// "" when none is needed.
//
// Precondition: op has pinned the chain.
func (s *Store) mend(op *Op, chain digest.Digest, m mender) (string, error) {
	dir := s.path("mended", chain.Encoded())
	tree := filepath.Join(dir, treeDir)
	fi, err := os.Lstat(dir)
	if err == nil && fi.Mode().Perm() == halfMode {
		if err := s.removeHalf(dir); err != nil {
			return "", err
		}
		return s.mend(op, chain, m)
	}
	if err == nil {
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
		return "", fmt.Errorf("mend the directories of layer %s: %w", filepath.Base(filepath.Dir(m.own)), err)
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
