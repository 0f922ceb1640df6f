package rotated

import (
	"context"
	"os"
	"syscall"
	"time"
)

// Watch waits for changes of the files in a directory, see inotify(7). One that
// is to miss nothing is made before the files are read.
type Watch struct {
	ctx  context.Context
	f    *os.File // nil where changes are not reported
	stop func() bool
}

// Written are the changes of a file that is written to and rotated.
const Written = syscall.IN_MODIFY | syscall.IN_CREATE | syscall.IN_MOVED_TO

// interval is how long Wait waits where changes are not reported.
const interval = 100 * time.Millisecond

// NewWatch begins to watch dir for some changes, IN_… of inotify(7), until ctx is done.
// The error wraps os.ErrNotExist where there is no dir. That the user has all instances
// or watches that one may have is none: others may have used them up, as whoever is in
// a user namespace that root made counts as root.
func NewWatch(ctx context.Context, dir string, changes uint32) (*Watch, error) {
	w := &Watch{ctx: ctx}
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		if _, err := os.Stat(dir); err != nil {
			return nil, err
		}
		return w, nil
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := syscall.InotifyAddWatch(fd, dir, changes); err != nil {
		f.Close()
		if err == syscall.ENOSPC || err == syscall.ENOMEM { //nolint:errorlint // raw errno
			return w, nil
		}
		return nil, &os.PathError{Op: "inotify_add_watch", Path: dir, Err: err}
	}
	w.f, w.stop = f, context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	return w, nil
}

// Wait returns when something may have changed. When the context is done it
// returns its cause.
func (w *Watch) Wait() error {
	if w.f == nil {
		select {
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		case <-time.After(interval):
			return nil
		}
	}
	var buf [4096]byte
	_, err := w.f.Read(buf[:])
	if cause := context.Cause(w.ctx); cause != nil {
		return cause
	}
	return err
}

// Close ends the watching.
func (w *Watch) Close() {
	if w.f != nil {
		w.stop()
		w.f.Close()
	}
}
