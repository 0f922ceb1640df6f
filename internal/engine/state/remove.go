package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Remove removes all that is kept of a workload whose lock the caller holds and
// whose boundary is deleted. It can be interrupted anywhere: the workload is gone
// with the first step, and Empty, Exclusive sections and idrange take the rest
// back. name may be "" and idBase 0 when they are not known.
func (l Layout) Remove(id workload.ID, name string, idBase uint32) error {
	trash := filepath.Join(l.Root, "trash", string(id))
	err := l.Exclusive(func() error {
		l.dropLink(id) // a link without workload means nothing, and a damaged record keeps none
		if err := os.Rename(l.Dir(id), trash); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		Did("remove: moved to trash")
		if name == "" {
			return nil
		}
		if to, err := os.Readlink(l.Name(name)); err == nil && to == string(id) {
			if err := os.Remove(l.Name(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		Did("remove: name freed")
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove workload %s: %w", id.Short(), err)
	}
	if idBase != 0 {
		err = l.IDs().Release(idBase, string(id))
		Did("remove: IDs freed")
	}
	err = errors.Join(err, l.Empty(id))
	if err != nil {
		return fmt.Errorf("remove workload %s: %w", id.Short(), err)
	}
	return nil
}

// Empty removes what Remove moved to the trash, and the run-time directory. Two
// processes may do so at once.
func (l Layout) Empty(id workload.ID) error {
	// It works by descriptor and follows no link, so a workload's files cannot lead
	// it elsewhere; nor does a tree that is deeper than there are descriptors stop it.
	err := at.RemoveAll(at.CWD, filepath.Join(l.Root, "trash", string(id)))
	Did("remove: files deleted")
	err = errors.Join(err, os.RemoveAll(l.RunDir(id)))
	Did("remove: run-time directory deleted")
	return err
}

// Unborn removes a workload whose creation was interrupted before it had a
// lock. While nobody else is in Exclusive none can be on its way to that.
func (l Layout) Unborn(id workload.ID) error {
	return l.Exclusive(func() error {
		if _, err := os.Lstat(filepath.Join(l.Dir(id), "lock")); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return errors.Join(os.RemoveAll(l.Dir(id)), os.RemoveAll(l.RunDir(id)))
	})
}
