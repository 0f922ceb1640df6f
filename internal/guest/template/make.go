package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

// Recipe says how a template is made that does not exist.
type Recipe struct {
	Key     string
	Machine map[string]string // see About
	Memory  int64             // bytes
	// Disk says that the machine has a writable disk, which is kept.
	Disk bool
	// Save boots a machine with its memory in the file f.RAM, which has the right
	// size, and f.Disk, which is empty, as its disk, and saves it to f.State. When it
	// returns, nobody writes to any.
	Save func(ctx context.Context, f *Files) (protocol.Hello, error)
	// Begin is called before that, Wait when somebody else is making it; either
	// may be nil.
	Begin, Wait func()
}

// Ensure makes a template unless it is there, and whole. However many ask for
// it at the same time, it is made once. What is damaged is made anew. What others
// left and cannot be removed is no reason to have none: Prune tells of it.
func (s *Store) Ensure(ctx context.Context, r Recipe) error {
	// Before the quick way out: whoever comes next cleans up.
	_ = s.sweep()
	if err := s.there(r.Key); err == nil || !gone(err) {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	unlock, err := s.lock(ctx, r.Key, r.Wait)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.there(r.Key); err == nil || !gone(err) {
		return err // somebody made it meanwhile
	}
	if r.Begin != nil {
		r.Begin()
	}
	return s.make(ctx, r)
}

// gone tells whether an error of Open means that the template is to be made.
func gone(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) }

func (s *Store) there(key string) error {
	t, err := s.Open(key)
	if err == nil {
		t.Close()
	}
	return err
}

// make makes a template. The caller holds its lock.
func (s *Store) make(ctx context.Context, r Recipe) (err error) {
	dir := s.path(makingPrefix + r.Key)
	// Of one that was killed; nobody else has our lock.
	if err := s.abandon(r.Key); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The guest's memory is written to by a page fault, which cannot say so.
			if full(dir) && !errors.Is(err, syscall.ENOSPC) {
				err = fmt.Errorf("%s: %w: %w", s.dir, syscall.ENOSPC, err)
			}
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	t := &Template{About: About{Format: format, Key: r.Key, Made: time.Now().UTC(), Machine: r.Machine, Memory: r.Memory}}
	defer t.Close()
	err = t.each(r.Disk, func(name string, f **os.File, _ *string) (err error) {
		*f, err = os.OpenFile(dir+"/"+name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.RAM.Truncate(r.Memory); err != nil {
		return err
	}
	if t.Hello, err = r.Save(ctx, &t.Files); err != nil {
		return err
	}
	err = t.each(r.Disk, func(_ string, f **os.File, sum *string) (err error) {
		// From here on nobody can open it for writing but root.
		if err = (*f).Chmod(0o400); err == nil {
			*sum, err = digest(*f)
		}
		return err
	})
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(t.About, "", "  ")
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(dir+"/"+aboutFile, append(b, '\n'), 0o600), os.WriteFile(dir+"/"+usedFile, nil, 0o600)); err != nil {
		return err
	}
	// What a damaged one left. Its clones keep what they have.
	if err := os.RemoveAll(s.path(r.Key)); err != nil {
		return err
	}
	if err := os.Rename(dir, s.path(r.Key)); err != nil {
		return err
	}
	// It is there, whatever comes now.
	if seen, err := t.seen(); err == nil {
		_ = s.writeSeen(r.Key, seen)
	}
	_ = errors.Join(s.made(r.Key), s.trim(r.Key))
	return nil
}

// full tells whether a directory's file system has no room to speak of.
func full(dir string) bool {
	const little = 1 << 20
	var st syscall.Statfs_t
	return syscall.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) < little
}

// lock takes the lock of those who make a template, waiting until ctx ends.
func (s *Store) lock(ctx context.Context, key string, waiting func()) (unlock func(), err error) {
	return flock.Open(ctx, s.path(key+lockSuffix), 0, waiting)
}

// What is beside the templates.
const (
	lockSuffix   = ".lock"
	makingPrefix = "making-"
)

// isMissing tells that a file is not there.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
