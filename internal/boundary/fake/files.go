package fake

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

var _ boundary.Files = (*instance)(nil)

// files makes the writable directory stand for the whole root file system. It
// gets the image's directories, so that there is something to copy into; the
// image's files it does not show.
func (in *instance) files(p boundary.Prepared) error {
	in.Tree = &boundary.Tree{
		Open:  func() (int, error) { return at.LookPath(p.Upper, true) },
		Upper: p.Upper, Layers: p.Layers,
	}
	if p.Upper == "" {
		return nil
	}
	if os.Geteuid() == 0 {
		in.Tree.IDs = filetree.IDs{Base: p.IDBase, Count: p.IDCount}
	}
	for _, layer := range p.Layers {
		err := filepath.WalkDir(layer, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() || name == layer {
				return err
			}
			rel, _ := filepath.Rel(layer, name)
			to := filepath.Join(p.Upper, rel)
			if err := os.Mkdir(to, 0o700); err != nil {
				if errors.Is(err, fs.ErrExist) {
					return nil
				}
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			if st, ok := fi.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
				if err := os.Lchown(to, int(p.IDBase+st.Uid), int(p.IDBase+st.Gid)); err != nil {
					return err
				}
			}
			return os.Chmod(to, fi.Mode())
		})
		if err != nil {
			return err
		}
	}
	return nil
}
