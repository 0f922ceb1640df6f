package image

import (
	"fmt"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

// lock takes the store's lock; how is syscall.LOCK_SH or LOCK_EX, perhaps with
// LOCK_NB. It is only ever held for a few file operations, never while data
// moves, so waiting for it is short.
func (s *Store) lock(how int) (unlock func(), err error) {
	f, err := os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock.Take(f, how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil // the last close of the description unlocks
}
