package events

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
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
	defer r.close()
	if err := r.read(ctx); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

type reader struct {
	log   Log
	o     Options
	f     func(Event) error
	files []*os.File // still to be read, oldest first
}

func (r *reader) close() {
	for _, f := range r.files {
		f.Close()
	}
}

func (r *reader) read(ctx context.Context) error {
	var w *watch
	if r.o.Follow {
		// Before anything is read, so that no change is missed.
		if !r.o.Until.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, r.o.Until, errOver)
			defer cancel()
		}
		var err error
		if w, err = newWatch(ctx, r.log.Dir); err != nil {
			return err
		}
		defer w.close()
	}
	if err := r.open(); err != nil {
		return err
	}
	for {
		if err := r.drain(); err != nil {
			return err
		}
		if w == nil {
			return nil
		}
		if err := w.wait(); err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, errOver) {
				return r.drain()
			} else if cause != nil {
				return cause
			}
			return err
		}
	}
}

var errOver = errors.New("the time is over")

// open opens what there is. Of new events alone, the end of the newest file is
// where to begin.
func (r *reader) open() error {
	newest, err := openFile(r.log.path())
	if err != nil {
		return err
	}
	if r.o.New {
		if newest == nil {
			return nil
		}
		r.files = []*os.File{newest}
		_, err := newest.Seek(0, io.SeekEnd)
		return err
	}
	// If the files are exchanged meanwhile, the same turns up again.
	older, err := openFile(r.log.old())
	if err != nil {
		return err
	}
	for _, f := range []*os.File{older, newest} {
		if f != nil {
			r.files = append(r.files, f)
		}
	}
	if len(r.files) == 2 && same(older, newest) {
		older.Close()
		r.files = r.files[1:]
	}
	return nil
}

// openFile returns nil for a file that does not exist.
func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

func same(a, b *os.File) bool {
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// drain reads all there is. It leaves the newest file open, at its end.
func (r *reader) drain() error {
	for {
		if len(r.files) == 0 {
			// There was none, or it is about to be made.
			r.o.New = false
			if err := r.open(); err != nil || len(r.files) == 0 {
				return err
			}
		}
		f := r.files[0]
		// Whether nothing will be added must be known before the end is seen.
		next, err := r.after(f)
		if err != nil {
			return err
		}
		if err := r.entries(f); err != nil {
			return err
		}
		if len(next) == 0 {
			return nil
		}
		for _, old := range r.files {
			old.Close()
		}
		r.files = next
	}
}

// after opens the files that came after f, none if it is the newest.
func (r *reader) after(f *os.File) ([]*os.File, error) {
	if len(r.files) > 1 {
		next := r.files[1:]
		r.files = r.files[:1]
		return next, nil
	}
	newest, err := openFile(r.log.path())
	if err != nil || newest == nil {
		return nil, err
	}
	if same(f, newest) {
		newest.Close()
		return nil, nil
	}
	older, err := openFile(r.log.old())
	if err != nil || older == nil || same(f, older) || same(older, newest) {
		if older != nil {
			older.Close()
		}
		return []*os.File{newest}, err
	}
	return []*os.File{older, newest}, nil
}

// entries calls f for each whole line from the file's position on, which it
// leaves behind the last one.
func (r *reader) entries(file *os.File) error {
	pos, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	b := bufio.NewReaderSize(file, 2*maxLine)
	for {
		line, err := b.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			pos += int64(len(line)) // no event; its end is none either
			continue
		}
		if err == io.EOF {
			_, err := file.Seek(pos, io.SeekStart)
			return err
		}
		if err != nil {
			return err
		}
		pos += int64(len(line))
		e, ok := parse(line)
		if !ok || !r.o.Since.IsZero() && e.Time.Before(r.o.Since) || !r.o.Until.IsZero() && e.Time.After(r.o.Until) {
			continue
		}
		if err := r.f(e); err != nil {
			return err
		}
	}
}

// watch waits for changes of the files, see inotify(7).
type watch struct {
	f    *os.File
	stop func() bool
}

func newWatch(ctx context.Context, dir string) (*watch, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_MODIFY|syscall.IN_CREATE|syscall.IN_MOVED_TO); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "inotify_add_watch", Path: dir, Err: err}
	}
	return &watch{f: f, stop: context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })}, nil
}

// wait returns when something may have changed.
func (w *watch) wait() error {
	var buf [4096]byte
	_, err := w.f.Read(buf[:])
	return err
}

func (w *watch) close() {
	w.stop()
	w.f.Close()
}
