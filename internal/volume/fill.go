package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// Fill gives a volume that is empty, and was never filled, the content that
// give puts into an open directory; found tells whether there was any. The root
// of the volume gets the attributes of that directory.
//
//	filling/ ──give──▶ complete ──rename──▶ filled/ ──renames──▶ data/, recorded
//	   │ killed: removed by the next        │ killed: finished by the next
//
// So a volume has all of the content or none. Two that want to fill it at a time
// wait for each other. A workload that has the volume already and writes to it
// meanwhile keeps what it wrote: its files are never replaced.
func (s *Store) Fill(ctx context.Context, name string, give func(dir *os.File) (found bool, err error)) error {
	v, err := s.Get(name)
	if err != nil || v.Filled && !s.half(name) {
		return err
	}
	unlock, err := s.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.finish(name); err != nil {
		return err
	}
	if v, err = s.Get(name); err != nil || v.Filled {
		return err
	}
	if empty, err := isEmpty(s.Data(name)); err != nil || !empty {
		return err
	}
	found, err := s.give(name, give)
	if err == nil && found && !v.Anonymous {
		err = s.sync(name)
	}
	if err == nil && found {
		err = os.Rename(s.path(name, fillingDir), s.path(name, filledDir))
	}
	if err != nil || !found {
		if rerr := s.clear(name); rerr != nil {
			err = errors.Join(err, rerr)
		}
		return err
	}
	did("fill: complete")
	return s.finish(name)
}

// give lets the caller put the content into a directory of its own.
func (s *Store) give(name string, give func(dir *os.File) (bool, error)) (bool, error) {
	if err := s.clear(name); err != nil {
		return false, err
	}
	dir := s.path(name, fillingDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return false, err
	}
	did("fill: begun")
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return give(f)
}

// sync writes what was put in to the disk, before a name says that it is
// complete.
func (s *Store) sync(name string) error {
	f, err := os.Open(s.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return at.Syncfs(f)
}

// Ready finishes what a killed command began: afterwards a volume has all of
// its content or none. It returns the directory to show to a workload.
func (s *Store) Ready(ctx context.Context, name string) (dir string, err error) {
	if _, err := s.Get(name); err != nil {
		return "", err
	}
	if s.half(name) {
		unlock, err := s.lock(ctx, name)
		if err != nil {
			return "", err
		}
		defer unlock()
		if err := s.finish(name); err != nil {
			return "", fmt.Errorf("finish filling volume %s: %w", name, err)
		}
	}
	return s.Data(name), nil
}

// half reports whether complete content is on its way.
func (s *Store) half(name string) bool {
	_, err := os.Lstat(s.path(name, filledDir))
	return err == nil
}

// Clear removes what a killed command left of incomplete content, unless
// somebody is at it.
func (s *Store) Clear(name string) error {
	if CheckName(name) != nil {
		return nil
	}
	if _, err := os.Lstat(s.path(name, fillingDir)); err != nil {
		return nil
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	unlock, err := s.lock(now, name)
	if err != nil {
		return nil
	}
	defer unlock()
	return s.clear(name)
}

// clear removes content that is not complete. The caller holds the volume's
// lock.
func (s *Store) clear(name string) error {
	d, err := os.Open(s.path(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return at.RemoveAll(int(d.Fd()), fillingDir)
}

// finish moves complete content into the volume. It may have begun before, so
// each step bears being repeated. The caller holds the volume's lock.
func (s *Store) finish(name string) error {
	if _, err := os.Lstat(s.path(name, filledDir)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	v, err := s.Get(name)
	if err != nil {
		return err
	}
	if !v.Filled { // or else all that is left is what workloads have in its place
		if err := s.move(name); err != nil {
			return err
		}
		if !v.Anonymous { // the record must not be on the disk before what it tells of
			if err := syncDir(s.Data(name)); err != nil {
				return err
			}
		}
		v.Filled = true
		if err := s.writeRecord(name, v); err != nil {
			return err
		}
		did("fill: recorded")
	}
	d, err := os.Open(s.path(name))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := at.RemoveAll(int(d.Fd()), filledDir); err != nil {
		return err
	}
	did("fill: done")
	return nil
}

// move moves complete content to where workloads see it. What they have there
// stays.
func (s *Store) move(name string) error {
	from, err := os.Open(s.path(name, filledDir))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open(s.Data(name))
	if err != nil {
		return err
	}
	defer to.Close()
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		err := at.RenameNew(int(from.Fd()), n, int(to.Fd()), n)
		if err != nil && !errors.Is(err, fs.ErrExist) { // a workload's own file
			return err
		}
		did("fill: moved")
	}
	return copyRoot(int(from.Fd()), int(to.Fd()))
}

// copyRoot gives the volume's root the owner, mode, attributes and times of
// the directory that the content came in.
func copyRoot(from, to int) error {
	st, err := at.Fstat(from)
	if err != nil {
		return err
	}
	if err := at.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	names, err := at.Llistxattr(from, ".")
	if err != nil {
		return err
	}
	for _, n := range names {
		if !strings.HasPrefix(n, "user.") && !strings.HasPrefix(n, "system.posix_acl_") {
			continue
		}
		value, err := at.Lgetxattr(from, ".", n)
		if err != nil {
			return err
		}
		if err := at.Fsetxattr(to, n, value); err != nil {
			return err
		}
	}
	if err := at.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return at.Chtimes(to, ".", time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

func isEmpty(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, _ := d.Readdirnames(1)
	return len(names) == 0, nil
}
