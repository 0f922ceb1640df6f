package events

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/rotated"
)

// Options selects what Read returns.
type Options struct {
	// Since and Until bound the events' times; zero for no bound.
	Since, Until time.Time
	// New leaves out what happened before the call.
	New bool
	// Follow waits for more, until Until if that is in the future.
	Follow bool
}

// Read calls f for each event, in the order in which they were recorded. It
// ends with f's error, that of ctx, or when Until has come.
func (l Log) Read(ctx context.Context, o Options, f func(Event) error) error {
	r := &reader{log: l, o: o, f: f}
	if err := r.read(ctx); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

type reader struct {
	log Log
	o   Options
	f   func(Event) error
}

func (r *reader) read(ctx context.Context) error {
	var w *rotated.Watch
	if r.o.Follow {
		// Before anything is read, so that no change is missed.
		if !r.o.Until.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, r.o.Until, errOver)
			defer cancel()
		}
		var err error
		if w, err = rotated.NewWatch(ctx, r.log.Dir, rotated.Written); err != nil {
			return err
		}
		defer w.Close()
	}
	open := rotated.Open
	if r.o.New {
		open = rotated.OpenEnd
	}
	files, err := open(r.log.path(), 2, maxLine)
	if err != nil {
		return err
	}
	defer files.Close()
	for {
		if err := files.Drain(r.line); err != nil {
			return err
		}
		if w == nil {
			return nil
		}
		if err := w.Wait(); errors.Is(err, errOver) {
			return files.Drain(r.line)
		} else if err != nil {
			return err
		}
	}
}

var errOver = errors.New("the time is over")

// line calls f for an event that is wanted.
func (r *reader) line(line []byte) error {
	e, ok := parse(line)
	if !ok || !r.o.Since.IsZero() && e.Time.Before(r.o.Since) || !r.o.Until.IsZero() && e.Time.After(r.o.Until) {
		return nil
	}
	return r.f(e)
}
