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
	f    *os.File
	stop func() bool
}

// NewWatch begins to watch dir, until ctx is done.
func NewWatch(ctx context.Context, dir string) (*Watch, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_MODIFY|syscall.IN_CREATE|syscall.IN_MOVED_TO); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "inotify_add_watch", Path: dir, Err: err}
	}
	return &Watch{ctx: ctx, f: f, stop: context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })}, nil
}

// Wait returns when something may have changed. When the context is done it
// returns its cause.
func (w *Watch) Wait() error {
	var buf [4096]byte
	_, err := w.f.Read(buf[:])
	if cause := context.Cause(w.ctx); cause != nil {
		return cause
	}
	return err
}

// Close ends the watching.
func (w *Watch) Close() {
	w.stop()
	w.f.Close()
}
