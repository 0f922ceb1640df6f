package image

import (
	"fmt"
	"os"
	"syscall"
)

// flock takes a lock on an open file, waiting for it unless nonblock is set.
func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR { //nolint:errorlint // raw errno
			return err
		}
	}
}

// lock takes the store's lock; how is syscall.LOCK_SH or LOCK_EX, perhaps with
// LOCK_NB. It is only ever held for a few file operations, never while data
// moves, so waiting for it is short.
func (s *Store) lock(how int) (unlock func(), err error) {
	f, err := os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil // the last close of the description unlocks
}
