package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

// AnonymousName returns a name for a volume that was given none: 256 random bits,
// as Docker's.
func AnonymousName() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read aborts the program instead
	return hex.EncodeToString(b[:])
}

// Create makes a volume, unless there is one of its name, which it returns. An
// anonymous one may be lost by a power cut, as its workload may; others are on
// disk when Create returns.
func (s *Store) Create(v Volume) (_ Volume, made bool, err error) {
	if err := CheckName(v.Name); err != nil {
		return v, false, err
	}
	if v.Created.IsZero() {
		v.Created = time.Now()
	}
	err = s.exclusive(func() error {
		if err := s.dropUnborn(); err != nil {
			return err
		}
		have, err := s.Get(v.Name)
		if err == nil || !errors.Is(err, ErrNotFound) {
			v = have
			return err
		}
		made = true
		return s.make(v)
	})
	if err != nil {
		return v, false, fmt.Errorf("make volume %s: %w", v.Name, err)
	}
	s.dropGone()
	return v, made, nil
}

// make makes a volume that does not exist. The caller is in exclusive.
func (s *Store) make(v Volume) (err error) {
	fresh := newPrefix + v.Name
	if err := os.Mkdir(s.path(fresh), 0o700); err != nil {
		return err
	}
	did("volume: directory made")
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(s.path(fresh)))
		}
	}()
	if err := os.Mkdir(s.path(fresh, dataDir), 0o755); err != nil {
		return err
	}
	// Whatever the caller's umask is.
	if err := os.Chmod(s.path(fresh, dataDir), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(s.path(fresh, lockFile), nil, 0o600); err != nil {
		return err
	}
	if err := s.writeRecord(fresh, v); err != nil {
		return err
	}
	did("volume: record written")
	if err := os.Rename(s.path(fresh), s.path(v.Name)); err != nil {
		return err
	}
	did("volume: made")
	if v.Anonymous {
		return nil
	}
	return syncDir(s.dir)
}

// writeRecord replaces the record in a volume's directory.
func (s *Store) writeRecord(dir string, v Volume) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	path := s.path(dir, recordFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && !v.Anonymous {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new")
		return err
	}
	if v.Anonymous {
		return nil
	}
	return syncDir(s.path(dir))
}

// Remove removes a volume, a damaged one too, unless users names somebody. It is
// asked while no other command makes or removes a volume: who is about to use
// one must be among them before calling Create. The error wraps ErrNotFound or
// ErrInUse.
func (s *Store) Remove(name string, users func() ([]string, error)) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := os.Lstat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	gone := gonePrefix + AnonymousName()
	var held *os.File // tells that somebody is at it
	defer func() { held.Close() }()
	err := s.exclusive(func() error {
		if fi, err := os.Lstat(s.path(name)); errors.Is(err, fs.ErrNotExist) || err == nil && !fi.IsDir() {
			return fmt.Errorf("%w: %s", ErrNotFound, name)
		}
		who, err := users()
		if err != nil {
			return fmt.Errorf("find who uses volume %s: %w", name, err)
		}
		if len(who) > 0 {
			return fmt.Errorf("%w: %s belongs to %s", ErrInUse, name, strings.Join(who, ", "))
		}
		if held, err = os.Open(s.path(name)); err == nil {
			err = flock.Take(held, syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if err != nil {
			return fmt.Errorf("remove volume %s: %w", name, err)
		}
		return os.Rename(s.path(name), s.path(gone))
	})
	if err != nil {
		return err
	}
	did("volume: moved away")
	if err := s.discard(gone); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	did("volume: removed")
	s.dropGone()
	return nil
}

// dropUnborn removes what killed commands left of volumes that they made. The
// caller is in exclusive, so no other is being made.
func (s *Store) dropUnborn() error {
	names, err := readNames(s.dir)
	for _, n := range names {
		if strings.HasPrefix(n, newPrefix) {
			err = errors.Join(err, s.discard(n))
		}
	}
	return err
}

// dropGone finishes removals whose command was killed. What it cannot remove,
// the next one tries again.
func (s *Store) dropGone() {
	names, _ := readNames(s.dir)
	for _, n := range names {
		if !strings.HasPrefix(n, gonePrefix) {
			continue
		}
		if d, err := os.Open(s.path(n)); err == nil {
			if flock.Take(d, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
				_ = s.discard(n)
			}
			d.Close()
		}
	}
}

// discard deletes a directory of the store. What is in it belongs to workloads.
func (s *Store) discard(name string) error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return at.RemoveAll(int(d.Fd()), name)
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// exclusive runs f while no other process is in exclusive on the same store.
func (s *Store) exclusive(f func() error) error {
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	file, err := os.OpenFile(s.path(lockFile), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("lock volumes: %w", err)
	}
	defer file.Close()
	if err := flock.Take(file, syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock volumes: %w", err)
	}
	return f()
}

// lock takes the lock of one volume, waiting for it until ctx ends.
func (s *Store) lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(s.path(name, lockFile), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return nil, err
	}
	// The kernel offers no way to wait for a flock that a context could end.
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := flock.Take(f, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock volume %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock volume %s: %w", name, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// syncDir makes what happened to the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
