package vm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// slowClock is a guest's clock that is off, and read by who waits before and after.
type slowClock struct {
	off           time.Duration
	before, after []time.Duration // of each reading
	reads         int
	shift         time.Duration
	err           error
}

func (c *slowClock) Clock(context.Context) (time.Time, error) {
	wait := func(all []time.Duration) {
		if c.reads < len(all) {
			time.Sleep(all[c.reads])
		}
	}
	wait(c.before)
	now := time.Now().Add(c.off).Round(0)
	wait(c.after)
	c.reads++
	return now, c.err
}

func (c *slowClock) ShiftClock(_ context.Context, d time.Duration) error {
	c.shift += d
	return nil
}

func TestAdjust(t *testing.T) {
	const ms = time.Millisecond
	long := []time.Duration{100 * ms, 100 * ms, 100 * ms, 100 * ms, 100 * ms}
	for name, tt := range map[string]struct {
		clock slowClock
		reads int // 0 for one, or more where this process had to wait
		left  bool
	}{
		"right":                    {clock: slowClock{}, left: true},
		"behind":                   {clock: slowClock{off: -time.Hour}},
		"ahead":                    {clock: slowClock{off: time.Hour}},
		"slow to take it, right":   {clock: slowClock{before: long}, reads: clockReads, left: true},
		"slow to answer, right":    {clock: slowClock{after: long}, reads: clockReads, left: true},
		"slow to answer, and off":  {clock: slowClock{after: long, off: -time.Second}, reads: clockReads},
		"slow once, a little off":  {clock: slowClock{before: []time.Duration{500 * ms}, off: 200 * ms}},
		"off by less than is open": {clock: slowClock{before: long, off: -30 * ms}, reads: clockReads, left: true},
		"off by more":              {clock: slowClock{before: long, off: 50 * ms}, reads: clockReads},
	} {
		t.Run(name, func(t *testing.T) {
			c := tt.clock
			if err := adjust(t.Context(), &c); err != nil {
				t.Fatal(err)
			}
			if tt.left != (c.shift == 0) {
				t.Errorf("moved by %v", c.shift)
			}
			// Never beyond the host's clock, and near it.
			if left := (c.shift + c.off) * time.Duration(sign(c.off)); !tt.left && (left < 0 || left > 100*ms) {
				t.Errorf("moved by %v, was off by %v", c.shift, c.off)
			}
			if tt.reads != 0 && c.reads != tt.reads {
				t.Errorf("read %d times, want %d", c.reads, tt.reads)
			}
		})
	}
	c := slowClock{off: time.Hour, err: errors.New("no answer")}
	if err := adjust(t.Context(), &c); err == nil || c.shift != 0 {
		t.Errorf("without an answer: %v, moved by %v", err, c.shift)
	}
}

// TestClockAfterPause: a guest that did not take the time when it went on is told it when
// somebody asks for that again.
func TestClockAfterPause(t *testing.T) {
	m, asked := ofTenant(t, &exchanges{}, func() []string { return nil })
	late, cancel := context.WithCancel(t.Context())
	m.processors.stop = func(context.Context) error { return nil }
	m.processors.cont = func(context.Context) error { cancel(); return nil }
	if err := m.processors.hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.letGo(late); !errors.Is(err, context.Canceled) || *asked != 0 {
		t.Fatalf("went on: %v, asked %d times", err, *asked)
	}
	for range 2 {
		if err := m.letGo(t.Context()); err != nil || *asked != 1 {
			t.Errorf("went on: %v, asked %d times, want 1", err, *asked)
		}
	}
}

// busyClock is that of a guest which takes its time for each answer.
type busyClock struct{ off, takes time.Duration }

func (c *busyClock) wait(ctx context.Context) error {
	select {
	case <-time.After(c.takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *busyClock) Clock(ctx context.Context) (time.Time, error) {
	now := time.Now().Add(c.off).Round(0)
	return now, c.wait(ctx)
}

func (c *busyClock) ShiftClock(ctx context.Context, d time.Duration) error {
	if err := c.wait(ctx); err != nil {
		return err
	}
	c.off += d
	return nil
}

// TestBusyGuest: one that needs a good part of the limit for each answer is not given up.
func TestBusyGuest(t *testing.T) {
	for _, takes := range []time.Duration{time.Second, 2 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &busyClock{off: -time.Hour, takes: takes}
				err := within(t.Context(), killTimeout, func(ctx context.Context) error { return adjust(ctx, c) })
				if err != nil || c.off > 0 || c.off < -takes {
					t.Errorf("off by %v, %v", c.off, err)
				}
			})
		})
	}
}

func sign(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return 1
}

// TestClockFollows: a guest's clock comes back to the host's a moment after the start
// and when the host's is set, but not while the machine is paused.
func TestClockFollows(t *testing.T) {
	f := newFixture(t)
	guard(t)
	s := program("pause")
	in, err := Boundary{}.Create(t.Context(), s, f.prepare(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Delete(context.Background()) //nolint:errcheck // again below
	m := in.(*instance).machine
	guest := clientOf(m)
	mislead := func() {
		t.Helper()
		if err := guest.ShiftClock(t.Context(), -time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	off := func() time.Duration {
		t.Helper()
		now, err := guest.Clock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return time.Until(now).Abs()
	}
	follows := func(when string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); off() > time.Minute; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the guest's clock is still off by %v", when, off())
			}
		}
	}
	mislead()
	if err := in.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	follows("after the start")

	if err := m.processors.hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.processors.askUnlessHeld() != nil {
		t.Error("a paused guest would be asked for its clock")
	}
	m.adjustClock(t.Context())
	if err := m.letGo(t.Context()); err != nil {
		t.Fatal(err)
	}

	mislead()
	if err := step(); errors.Is(err, unix.EPERM) {
		t.Log("this process may not set the host's clock")
		m.adjustClock(t.Context())
	} else if err != nil {
		t.Fatal(err)
	}
	follows("after a step of the host's clock")
	if err := in.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

// step sets the host's clock, by a nanosecond and back.
func step() error {
	for _, by := range []unix.Timeval{{Usec: 1}, {Sec: -1, Usec: 1e9 - 1}} {
		if _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: by}); err != nil {
			return err
		}
	}
	return nil
}
