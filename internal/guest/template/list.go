package template

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

// Entry is one template of a list.
type Entry struct {
	About
	Used time.Time // when a clone was made last, or when it was made
	// Size is what it takes of the disk, in bytes.
	Size int64
	// InUse says that clones run.
	InUse bool
	// Err says why it cannot be used, nil if it looks whole. Only using it verifies
	// its digests.
	Err error
}

// List lists all templates, those used last first.
func (s *Store) List() ([]Entry, error) {
	names, err := os.ReadDir(s.dir)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Entry
	for _, n := range names {
		if checkKey(n.Name()) != nil {
			continue
		}
		e, err := s.Get(n.Name())
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	now := time.Now()
	slices.SortStableFunc(all, func(a, b Entry) int { return b.lastUse(now).Compare(a.lastUse(now)) })
	return all, nil
}

// lastUse is Used, or no time at all where that is yet to come: the clock was off
// when the template was used, and it would be the last to go for as long.
func (e Entry) lastUse(now time.Time) time.Time {
	if e.Used.After(now) {
		return time.Time{}
	}
	return e.Used
}

// Get describes one template, whole or damaged.
func (s *Store) Get(key string) (e Entry, err error) {
	e.About, e.Err = s.about(key)
	if errors.Is(e.Err, ErrNotFound) || checkKey(key) != nil {
		return e, e.Err
	}
	e.Key = key
	names := []string{memoryFile, stateFile, aboutFile}
	if e.hasDisk() {
		names = append(names, diskFile)
	}
	for _, name := range names {
		if fi, err := os.Lstat(s.path(key, name)); err == nil {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				e.Size += st.Blocks * 512
			}
		} else if e.Err == nil {
			e.Err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	if fi, err := os.Lstat(s.path(key, usedFile)); err == nil {
		e.Used = fi.ModTime()
	}
	f, err := os.OpenFile(s.path(key, memoryFile), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return e, nil // it is damaged, which has been said
	}
	defer f.Close()
	e.InUse, err = sys.InUse(f)
	return e, err
}

// Find returns the key that begins with prefix, at least four digits of it.
func (s *Store) Find(prefix string) (string, error) {
	all, err := s.List()
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range all {
		if strings.HasPrefix(e.Key, prefix) && len(prefix) >= 4 {
			found = append(found, e.Key)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w: %q", ErrNotFound, prefix)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%q is the begin of %d templates' keys: give more of it", prefix, len(found))
}

// Remove removes a template. One that is in use stays unless it is forced; its
// clones keep what they have, and its room on the disk until they end.
func (s *Store) Remove(key string, force bool) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if f, err := os.OpenFile(s.path(key, memoryFile), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err == nil {
		defer f.Close()
		used, err := sys.InUse(f)
		if err != nil {
			return err
		}
		if used && !force {
			return fmt.Errorf("%w: %.12s", ErrInUse, key)
		}
	} else if _, err := os.Lstat(s.path(key)); isMissing(err) {
		return fmt.Errorf("%w: %.12s", ErrNotFound, key)
	}
	// Under another name first: half of it is no template.
	doomed := s.path(doomedPrefix + rand.Text())
	switch err := os.Rename(s.path(key), doomed); {
	case isMissing(err): // removed meanwhile
		return fmt.Errorf("%w: %.12s", ErrNotFound, key)
	case err != nil:
		return err
	}
	return os.RemoveAll(doomed)
}

const doomedPrefix = "removing-"

// Most is how many templates are kept: when another is made, those go that were
// used least recently, unless they are in use.
const Most = 12

// trim removes templates beyond Most, but not that one, and what commands left
// that were killed.
func (s *Store) trim(keep string) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	kept := 0
	for _, e := range all {
		if kept++; kept <= Most || e.Key == keep {
			continue
		}
		if e := s.Remove(e.Key, false); e != nil && !errors.Is(e, ErrInUse) && !errors.Is(e, ErrNotFound) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, s.sweep())
}

// Prune removes all templates that are not in use, and what commands left that
// were killed, and forgets what was asked for. It returns those that it removed.
func (s *Store) Prune() (removed []Entry, err error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		switch failed := s.Remove(e.Key, false); {
		case failed == nil:
			removed = append(removed, e)
		case errors.Is(failed, ErrInUse), errors.Is(failed, ErrNotFound):
		default:
			err = errors.Join(err, failed)
		}
	}
	return removed, errors.Join(err, os.RemoveAll(s.path(askedDir)), s.sweep())
}

// sweep removes what commands left that were killed: unfinished templates that
// nobody is making, and half removed ones. Lock files stay: whoever waits for one
// must not have another than who comes later.
func (s *Store) sweep() error {
	names, err := os.ReadDir(s.dir)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var failed error
	for _, n := range names {
		name := n.Name()
		if strings.HasPrefix(name, doomedPrefix) {
			failed = errors.Join(failed, os.RemoveAll(s.path(name)))
		}
		key, unfinished := strings.CutPrefix(name, makingPrefix)
		if !unfinished || checkKey(key) != nil {
			continue
		}
		f, err := os.OpenFile(s.path(key+lockSuffix), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if flock.Take(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			failed = errors.Join(failed, s.abandon(key))
		}
		f.Close()
	}
	return failed
}

// abandon removes an unfinished template. The caller holds its lock.
func (s *Store) abandon(key string) error {
	dir := s.path(makingPrefix + key)
	if _, err := os.Lstat(dir); isMissing(err) {
		return nil
	}
	if s.Clean != nil {
		if err := s.Clean(key); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}
