package logfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/rotated"
)

// Options selects what Read writes.
type Options struct {
	// Tail is how many lines at the end are wanted, of both streams together;
	// negative for all.
	Tail int
	// Since and Until bound the entries' times; zero for no bound.
	Since, Until time.Time
	// Timestamps puts its time before each line.
	Timestamps bool
	// Files is how many files there may be, 0 for MaxFiles.
	Files int
	// Follow waits for more until this is closed; nil does not.
	Follow <-chan struct{}
}

// Read writes the log at path, the streams to their writers; a nil one drops
// it. A log that was never begun is empty.
func Read(ctx context.Context, path string, o Options, stdout, stderr io.Writer) error {
	o.Files = cmp.Or(o.Files, MaxFiles)
	r := &reader{path: path, o: o, out: [2]io.Writer{stdout, stderr}}
	if err := r.read(ctx); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	return nil
}

type reader struct {
	path string
	o    Options
	out  [2]io.Writer
	skip int     // line ends to pass over
	mid  [2]bool // a stream's last entry was not the end of a line
}

// errEnded tells that nothing more is to come.
var errEnded = errors.New("the log has ended")

func (r *reader) read(ctx context.Context) error {
	var watch *rotated.Watch
	if r.o.Follow != nil {
		follow, stop := until(ctx, r.o.Follow)
		defer stop()
		// Before anything is read, so that no change is missed.
		var err error
		if watch, err = rotated.NewWatch(follow, filepath.Dir(r.path), rotated.Written); err != nil {
			return err
		}
		defer watch.Close()
	}
	files, err := rotated.Open(r.path, r.o.Files, maxLine)
	if err != nil {
		return err
	}
	defer files.Close()
	if r.o.Tail >= 0 {
		if err := r.count(files); err != nil {
			return err
		}
	}
	each := entries(func(e Entry) error { return r.entry(ctx, e) })
	for ended := false; ; {
		// Output that is there is read before the end is believed.
		if err := files.Drain(each); err != nil {
			return err
		}
		if watch == nil || ended {
			return nil
		}
		if err := watch.Wait(); errors.Is(err, errEnded) {
			ended = true
		} else if err != nil {
			return err
		}
	}
}

// until returns a context that is done when ended is closed, too, by the cause
// errEnded. stop ends it, and leaves nothing behind.
func until(ctx context.Context, ended <-chan struct{}) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ended:
			cancel(errEnded)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

// count sets skip so that Tail lines remain. It reads everything twice, which
// needs no memory; the size of a log is bounded.
func (r *reader) count(files *rotated.Files) error {
	lines, open := 0, false
	err := files.Preview(entries(func(e Entry) error {
		if e.Full {
			lines++
		}
		open = !e.Full
		return nil
	}))
	if open {
		lines++ // the last line has no end yet
	}
	r.skip = max(0, lines-r.o.Tail)
	return err
}

func (r *reader) entry(ctx context.Context, e Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.skip > 0 {
		if e.Full {
			r.skip--
		}
		return nil
	}
	if !r.o.Since.IsZero() && e.Time.Before(r.o.Since) || !r.o.Until.IsZero() && e.Time.After(r.o.Until) {
		return nil
	}
	stamp := r.o.Timestamps && !r.mid[e.Stream]
	r.mid[e.Stream] = !e.Full
	if w := r.out[e.Stream]; w != nil {
		return writeEntry(w, e, stamp)
	}
	return nil
}

// entries calls f for each line that is an entry. Others are passed over.
func entries(f func(Entry) error) func([]byte) error {
	return func(line []byte) error {
		e, err := parse(line)
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		return f(e)
	}
}
