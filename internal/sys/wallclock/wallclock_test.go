package wallclock

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWatch(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if set, err := w.Wait(t.Context(), time.Millisecond); set || err != nil {
		t.Fatalf("nobody set the clock: %v, %v", set, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if set, err := w.Wait(ctx, time.Hour); set || err != nil {
		t.Fatalf("after the end of the context: %v, %v", set, err)
	}
	// A nanosecond forth and back is setting it, too.
	for _, by := range []unix.Timeval{{Usec: 1}, {Sec: -1, Usec: 1e9 - 1}} {
		if _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: by}); errors.Is(err, unix.EPERM) {
			t.Skip("this process may not set the clock")
		} else if err != nil {
			t.Fatal(err)
		}
		if set, err := w.Wait(t.Context(), 10*time.Second); !set || err != nil {
			t.Fatalf("the clock was set: %v, %v", set, err)
		}
	}
	if set, err := w.Wait(t.Context(), time.Millisecond); set || err != nil {
		t.Errorf("told twice: %v, %v", set, err)
	}
}
