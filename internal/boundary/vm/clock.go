package vm

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/wallclock"
)

const (
	// clockAfter is the time from the start to the first look at a guest's clock:
	// what ends sooner shall not pay for it. It brings back some 3 MB of what QEMU
	// and the supervisor gave up before; but with 0.6 s, and trimAfter at 0.8,
	// machines on /dev/kvm of an emulated host did not come to their end.
	clockAfter = 2 * time.Second
	// clockEvery is that between two looks. A guest that was told the rate of the
	// time stamp counter may be 30 ms off by then, see package tsc.
	clockEvery = 5 * time.Minute
	// clockReads is how often a clock is read for one answer that is quick, and
	// clockQuick how quick that is. After clockPatience it is not read again: of
	// killTimeout enough shall be left to move it.
	clockReads    = 5
	clockQuick    = 10 * time.Millisecond
	clockPatience = killTimeout / 4
	// clockOff is the deviation that is left alone, beside what the reading leaves
	// open.
	clockOff = 5 * time.Millisecond
)

// guestClock is the clock of a guest, as its agent has it.
type guestClock interface {
	Clock(ctx context.Context) (time.Time, error)
	ShiftClock(ctx context.Context, d time.Duration) error
}

// adjust moves a guest's clock towards the host's by as much as it is off for certain:
// a guest may take its time to answer, and then nobody knows when it read its clock.
func adjust(ctx context.Context, c guestClock) error {
	var off time.Duration // to the host's clock, ±open
	open := time.Duration(-1)
	began := time.Now()
	for range clockReads {
		before := time.Now()
		there, err := c.Clock(ctx)
		if err != nil {
			return err
		}
		took := time.Since(before)
		if half := took / 2; open < 0 || half < open {
			off, open = before.Add(half).Round(0).Sub(there), half
		}
		if took <= clockQuick || time.Since(began) > clockPatience {
			break
		}
	}
	switch {
	case off > open+clockOff:
		return c.ShiftClock(ctx, off-open)
	case off < -open-clockOff:
		return c.ShiftClock(ctx, off+open)
	}
	return nil
}

// clockKeeper keeps a machine's clock. The zero value has not begun.
type clockKeeper struct {
	once sync.Once // of begin, or never by end
	stop context.CancelFunc
	done chan struct{}
	late atomic.Bool // since a pause, and the guest has not taken the time yet
}

// keepClock has the guest's clock follow the host's from now on, until kill: what the
// guest counts differently, and what the host's is set by.
func (m *machine) keepClock() {
	m.clock.once.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		m.clock.stop, m.clock.done = cancel, make(chan struct{})
		go func() {
			defer close(m.clock.done)
			m.followClock(ctx)
		}()
	})
}

// leaveClock ends keepClock, or makes sure that it does nothing any more.
func (m *machine) leaveClock() {
	m.clock.once.Do(func() {})
	if m.clock.stop != nil {
		m.clock.stop()
		<-m.clock.done
	}
}

func (m *machine) followClock(ctx context.Context) {
	watch, err := wallclock.NewWatch()
	if err == nil {
		defer watch.Close()
		for wait := clockAfter; err == nil && ctx.Err() == nil; wait = clockEvery {
			if _, err = watch.Wait(ctx, wait); err == nil && ctx.Err() == nil {
				m.adjustClock(ctx)
			}
		}
	}
	if err != nil && m.notice != nil {
		m.notice("the guest's clock is not kept in step with the host's: " + err.Error())
	}
}

// adjustClock leaves a machine alone whose processors stand: it gets the time when
// they run again. That a guest does not answer is seen by who needs it, and it is
// asked again the next time.
func (m *machine) adjustClock(ctx context.Context) {
	done := m.processors.askUnlessHeld()
	if done == nil {
		return
	}
	defer done()
	within(ctx, killTimeout, func(ctx context.Context) error { return adjust(ctx, clientOf(m)) }) //nolint:errcheck // said above
}
