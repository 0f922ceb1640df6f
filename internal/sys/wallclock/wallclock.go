// Package wallclock tells when the machine's wall clock was set.
package wallclock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watch sees each time the wall clock is set, by a person, a step of NTP, or the
// machine's coming back after it was suspended. What gradually moves the clock is
// not seen.
type Watch struct {
	f *os.File // a timer that never ends
}

// NewWatch begins to watch. Close ends that.
func NewWatch() (*Watch, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the clock: %w", os.NewSyscallError("timerfd_create", err))
	}
	// Its end is at a time that no clock shows, so all that a read brings is that
	// the clock jumped: ECANCELED, timerfd_create(2).
	end := &unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32 << 2}}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, end, nil); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the clock: %w", os.NewSyscallError("timerfd_settime", err))
	}
	return &Watch{os.NewFile(uintptr(fd), "clock")}, nil
}

// Wait waits for the clock to be set: what came since the last Wait, or since
// NewWatch, counts. It returns false after d, at the end of ctx, and with an error
// that is none of those.
func (w *Watch) Wait(ctx context.Context, d time.Duration) (set bool, err error) {
	if err := w.f.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { w.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = w.f.Read(make([]byte, 8))
	switch {
	case errors.Is(err, syscall.ECANCELED):
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	}
	return false, err
}

// Close ends the watch.
func (w *Watch) Close() error { return w.f.Close() }
