package template

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	askedDir = "asked"
	// maxAsked bounds for how many templates that are not made yet it is counted.
	maxAsked = 256
)

// Asked counts that a template would have been of use which is not worth being
// made the first time, and returns how often that was, this time included. What
// was asked for longest ago is forgotten when there is too much else.
func (s *Store) Asked(key string) (times int, err error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(s.path(askedDir), 0o700); err != nil {
		return 0, err
	}
	// One byte each time: nobody's is lost, without a lock.
	f, err := os.OpenFile(s.path(askedDir, key), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.Write([]byte{'.'}); err != nil {
		return 0, err
	}
	size, err := f.Seek(0, io.SeekCurrent) // as of this byte, whoever wrote after it
	if err != nil {
		return 0, err
	}
	if size == 1 {
		err = s.forget()
	}
	return int(size), err
}

// made forgets how often a template was asked for, which is made.
func (s *Store) made(key string) error {
	if err := os.Remove(s.path(askedDir, key)); !isMissing(err) {
		return err
	}
	return nil
}

// forget removes the oldest counts beyond maxAsked.
func (s *Store) forget() error {
	names, err := os.ReadDir(s.path(askedDir))
	if err != nil || len(names) <= maxAsked {
		return err
	}
	type count struct {
		name string
		last time.Time
	}
	var all []count
	for _, n := range names {
		if fi, err := n.Info(); err == nil { // else it has gone
			all = append(all, count{n.Name(), fi.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b count) int { return b.last.Compare(a.last) })
	for _, c := range all[min(len(all), maxAsked):] {
		if e := os.Remove(filepath.Join(s.path(askedDir), c.name)); e != nil && !isMissing(e) {
			err = errors.Join(err, e)
		}
	}
	return err
}
