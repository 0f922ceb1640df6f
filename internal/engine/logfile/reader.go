package logfile

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
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
	defer r.close()
	if err := r.read(ctx); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	return nil
}

type reader struct {
	path  string
	o     Options
	out   [2]io.Writer
	files []*os.File // still to be read, oldest first
	skip  int        // line ends to pass over
	mid   [2]bool    // a stream's last entry was not the end of a line
}

func (r *reader) close() {
	for _, f := range r.files {
		f.Close()
	}
}

func (r *reader) read(ctx context.Context) error {
	var watch *watcher
	if r.o.Follow != nil {
		// Before anything is read, so that no change is missed.
		var err error
		if watch, err = newWatcher(ctx, filepath.Dir(r.path), r.o.Follow); err != nil {
			return err
		}
		defer watch.close()
	}
	if err := r.open(); err != nil {
		return err
	}
	if r.o.Tail >= 0 {
		if err := r.count(); err != nil {
			return err
		}
	}
	for ended := false; ; {
		// Output that is there is read before the end is believed.
		if err := r.drain(ctx); err != nil {
			return err
		}
		if watch == nil || ended {
			return nil
		}
		var err error
		if ended, err = watch.wait(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// open opens the files that exist. It begins with the newest: if they are
// rotated meanwhile, the same file turns up again and is left out.
func (r *reader) open() error {
	for i := range r.o.Files {
		f, err := os.Open(numbered(r.path, i))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if len(r.files) > 0 && same(f, r.files[0]) {
			f.Close()
			continue
		}
		r.files = append([]*os.File{f}, r.files...)
	}
	return nil
}

func same(a, b *os.File) bool {
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// count sets skip so that Tail lines remain. It reads everything twice, which
// needs no memory; the size of a log is bounded.
func (r *reader) count() error {
	lines, open := 0, false
	for _, f := range r.files {
		err := entries(f, func(e Entry) error {
			if e.Full {
				lines++
			}
			open = !e.Full
			return nil
		})
		if err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	if open {
		lines++ // the last line has no end yet
	}
	r.skip = max(0, lines-r.o.Tail)
	return nil
}

// drain writes all there is. It leaves the newest file open, at its end.
func (r *reader) drain(ctx context.Context) error {
	for {
		if len(r.files) == 0 {
			if err := r.open(); err != nil || len(r.files) == 0 {
				return err
			}
		}
		f := r.files[0]
		// Whether f is the newest must be known before its end is seen.
		newest := len(r.files) == 1
		if newest {
			if cur, err := os.Open(r.path); err == nil {
				newest = same(cur, f)
				cur.Close()
			}
		}
		if err := entries(f, func(e Entry) error { return r.entry(ctx, e) }); err != nil {
			return err
		}
		if newest {
			return nil
		}
		if len(r.files) == 1 {
			if err := r.newer(f); err != nil {
				return err
			}
			if len(r.files) == 1 {
				return nil // f was rotated away and its successor is about to be made
			}
		}
		f.Close()
		r.files = r.files[1:]
	}
}

// newer appends the file that was begun after f was rotated away.
func (r *reader) newer(f *os.File) error {
	for i := r.o.Files - 1; i >= 0; i-- {
		g, err := os.Open(numbered(r.path, i))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !same(f, g) {
			r.files = append(r.files, g)
			continue
		}
		// All that came before is older than f: forget it.
		g.Close()
		for _, old := range r.files[1:] {
			old.Close()
		}
		r.files = r.files[:1]
	}
	return nil
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

// entries calls f for each whole entry from f's position on, which it leaves
// behind the last one. Lines that are no entries are passed over.
func entries(file *os.File, f func(Entry) error) error {
	pos, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	b := bufio.NewReaderSize(file, maxLine)
	skipping := false
	for {
		line, err := b.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			skipping = true // longer than any entry
			pos += int64(len(line))
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
		e, perr := parse(line[:len(line)-1])
		if perr == nil && !skipping {
			if err := f(e); err != nil {
				return err
			}
		}
		skipping = false
	}
}

// watcher waits for changes in a directory, see inotify(7).
type watcher struct {
	f    *os.File
	end  <-chan struct{}
	stop chan struct{}
	done chan struct{}
}

func newWatcher(ctx context.Context, dir string, end <-chan struct{}) (*watcher, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_MODIFY|syscall.IN_CREATE|syscall.IN_MOVED_TO); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "inotify_add_watch", Path: dir, Err: err}
	}
	w := &watcher{f: f, end: end, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		select {
		case <-end:
		case <-ctx.Done():
		case <-w.stop:
		}
		f.SetReadDeadline(time.Unix(1, 0))
	}()
	return w, nil
}

// wait returns when something may have changed, or with true at the end.
func (w *watcher) wait() (ended bool, err error) {
	var buf [4096]byte
	_, err = w.f.Read(buf[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true, nil
	}
	return false, err
}

func (w *watcher) close() {
	close(w.stop)
	<-w.done
	w.f.Close()
}
