package kernel

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

// lock takes one of the store's locks, waiting until ctx ends. waiting, if not
// nil, is called when somebody else holds it.
func (s *Store) lock(ctx context.Context, name string, waiting func()) (unlock func(), err error) {
	return flock.Open(ctx, s.path(name), 0, waiting)
}

// How the names below tmp begin.
const (
	stagePrefix   = "stage-"
	defaultPrefix = "default-"
)

// stage is a directory for what is being made. It is locked while its process
// lives, so that whoever comes later knows what may be removed.
type stage struct {
	dir string
	f   *os.File
}

// newStage makes a directory below tmp. The caller must close it; what was not
// moved out of it by then is removed.
func (s *Store) newStage(ctx context.Context) (*stage, error) {
	unlock, err := s.lock(ctx, "lock", nil) // a sweeper must not see it unlocked
	if err != nil {
		return nil, err
	}
	defer unlock()
	dir, err := os.MkdirTemp(s.path("tmp"), stagePrefix)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err == nil {
		err = flock.Take(f, syscall.LOCK_EX)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		os.RemoveAll(dir)
		return nil, err
	}
	return &stage{dir: dir, f: f}, nil
}

func (st *stage) path(name string) string { return filepath.Join(st.dir, name) }

func (st *stage) close() {
	os.RemoveAll(st.dir)
	st.f.Close()
}

// sweep removes what commands left behind that were killed.
func (s *Store) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(s.path("tmp"))
	if err != nil || len(entries) == 0 {
		return err
	}
	unlock, err := s.lock(ctx, "lock", nil)
	if err != nil {
		return err
	}
	defer unlock()
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), defaultPrefix) {
			// Who makes one holds the lock, so this one's maker is gone.
			if err := os.Remove(s.path("tmp", e.Name())); err != nil {
				return err
			}
		}
		if !strings.HasPrefix(e.Name(), stagePrefix) {
			continue
		}
		f, err := os.Open(s.path("tmp", e.Name()))
		if err != nil {
			continue // its owner was faster
		}
		if flock.Take(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			err = os.RemoveAll(f.Name())
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// writeSynced makes a file that is on the disk when it returns. Any user may
// read it, who gets into the store's directory, which is root's alone: a VMM,
// which is given the file and is no root, then opens it without a copy.
func writeSynced(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes renames in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
