// Package monotonic reads clocks that nobody can set, as numbers that processes
// can compare: what package time reads of them is good within one process only.
package monotonic

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since the machine was started, without the time that it was
// suspended (CLOCK_MONOTONIC of clock_gettime(2)). It is the same clock in every
// process of one time namespace.
func Now() time.Duration { return read(unix.CLOCK_MONOTONIC) }

// Raw is like Now, but no adjustment of the clock's rate has a part in it
// (CLOCK_MONOTONIC_RAW).
func Raw() time.Duration { return read(unix.CLOCK_MONOTONIC_RAW) }

// Used is the processor time that this process has used since it was forked
// (CLOCK_PROCESS_CPUTIME_ID).
func Used() time.Duration { return read(unix.CLOCK_PROCESS_CPUTIME_ID) }

// read returns 0 for a clock that the kernel lacks, which is none of these.
func read(clock int32) time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(clock, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
