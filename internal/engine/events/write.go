package events

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/rotated"
)

// MaxSize is when a file of events is full, in bytes. There are two.
const MaxSize = 4 << 20

// Log is the events of one run root.
type Log struct {
	Dir string
	max int64 // 0 for MaxSize
}

func (l Log) path() string { return filepath.Join(l.Dir, "events") }
func (l Log) old() string  { return rotated.Name(l.path(), 1) }

func (l Log) size() int64 {
	if l.max > 0 {
		return l.max
	}
	return MaxSize
}

// patience is how often, a millisecond apart, a lock is tried for before the
// writer goes on without: it is held for the time of a write or a rename.
const patience = 20

// Append records an event. An event without a time happens now.
func (l Log) Append(e Event) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	b, err := e.line()
	if err != nil {
		return err
	}
	for range patience {
		var again bool
		if again, err = l.append(b); !again {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("record event: %w", err)
	}
	return nil
}

// append writes a line. It returns true when the file was renamed meanwhile.
func (l Log) append(b []byte) (again bool, err error) {
	f, err := os.OpenFile(l.path(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return false, err
	}
	defer f.Close()
	locked := lock(f, syscall.LOCK_SH)
	if locked && !l.current(f) {
		return true, nil
	}
	n, err := f.Write(b)
	if err != nil {
		if n > 0 {
			// A full disk took the beginning: end the line, if there is room for that.
			f.Write([]byte{'\n'})
		}
		return false, err
	}
	if fi, err := f.Stat(); locked && err == nil && fi.Size() >= l.size() {
		l.rotate(f)
	}
	return false, nil
}

// rotate renames a file that is full. If others are writing to it, the next of
// them will.
func (l Log) rotate(f *os.File) {
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil && l.current(f) {
		os.Rename(l.path(), l.old()) // if it fails, the next writer tries again
	}
}

// current reports whether f is the file that events go to.
func (l Log) current(f *os.File) bool {
	now, err := os.Stat(l.path())
	if err != nil {
		return false
	}
	ours, err := f.Stat()
	return err == nil && os.SameFile(now, ours)
}

// lock takes a lock, if it can be had soon.
func lock(f *os.File, how int) bool {
	for range patience {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return true
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return false
}
