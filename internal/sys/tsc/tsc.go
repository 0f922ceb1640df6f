// Package tsc finds out how quickly the processor's time stamp counter counts.
// The kernel knows, but tells nobody. A machine that QEMU emulates has the host's
// counter, and its kernel can hardly find out by itself: the devices that it would
// measure by are emulated, too, and late on a busy host.
package tsc

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/monotonic"
)

// point is one moment, by the counter and by CLOCK_MONOTONIC_RAW.
type point struct {
	Counter uint64        `json:"counter"`
	Time    time.Duration `json:"time"`
}

// record is what the file keeps.
type record struct {
	point     // when the counter was last measured
	KHz   int `json:"khz"`
}

const (
	// shortest is the time for which the counter is measured. Reading two clocks at
	// one moment is good to less than a microsecond, so that makes some 10 ppm.
	shortest = 20 * time.Millisecond
	// tolerance is how much two measures of one counter differ at most. NTP may
	// correct the clock of whoever trusts them by five times as much.
	tolerance = 100e-6
)

// The rates that are believed, kHz.
const (
	minKHz = 100_000
	maxKHz = 20_000_000
)

// Rate returns how often the counter counts in a millisecond (kHz), or 0 where the
// kernel does not trust it to be the same on all processors at all times. The first
// call after the machine was started takes 20 ms.
//
// The answer is kept in the file, and stays the same from then on, also after a
// restart of the machine, as long as measures confirm it within 100 ppm: two that
// differ by noise would make two of what depends on it. Concurrent calls agree.
func Rate(file string) (kHz int, err error) {
	if !Trusted() {
		return 0, nil
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, fmt.Errorf("rate of the time stamp counter: %w", err)
	}
	defer f.Close()
	if err := flock.Take(f, syscall.LOCK_EX); err != nil {
		return 0, fmt.Errorf("lock %s: %w", file, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return 0, err
	}
	var old record
	if json.Unmarshal(b, &old) != nil {
		old = record{} // written in part
	}
	first := now()
	if confirms(old, first) {
		return old.KHz, nil
	}
	time.Sleep(shortest)
	kept := record{point: now()}
	if kept.KHz = rate(first, kept.point); kept.KHz == 0 {
		return 0, nil
	}
	if alike(kept.KHz, old.KHz) {
		kept.KHz = old.KHz
	}
	if b, err = json.Marshal(kept); err != nil {
		return 0, err
	}
	if err := f.Truncate(0); err != nil {
		return 0, err
	}
	if _, err := f.WriteAt(append(b, '\n'), 0); err != nil {
		return 0, fmt.Errorf("keep the rate of the time stamp counter: %w", err)
	}
	return kept.KHz, nil
}

// confirms reports whether the counter has counted from old to p as old says. It
// has not where the machine was started anew in between, or suspended, or goes on
// on another host.
func confirms(old record, p point) bool {
	return p.Time-old.Time >= shortest && alike(rate(old.point, p), old.KHz)
}

func alike(a, b int) bool {
	return a != 0 && b != 0 && math.Abs(float64(a)/float64(b)-1) <= tolerance
}

// rate is what lies between two moments, or 0 if that is nothing to believe.
func rate(a, b point) int {
	if b.Counter <= a.Counter || b.Time <= a.Time {
		return 0
	}
	kHz := math.Round(float64(b.Counter-a.Counter) / float64(b.Time-a.Time) * 1e6)
	if kHz < minKHz || kHz > maxKHz {
		return 0
	}
	return int(kHz)
}

// now reads both clocks, as nearly at one moment as some tries allow: this process
// may have to wait between two reads.
func now() (p point) {
	least := uint64(math.MaxUint64)
	for range 8 {
		before := counter()
		t := monotonic.Raw()
		after := counter()
		if d := after - before; d < least {
			least, p = d, point{before + d/2, t}
		}
	}
	return p
}

const (
	clocksource = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	cpuinfo     = "/proc/cpuinfo"
)

// Trusted reports whether the kernel tells the time by the counter: whether Rate is
// not 0.
func Trusted() bool { return implemented && trusted(clocksource, cpuinfo) }

// trusted reports whether the kernel tells the time by the counter: then it is the
// same on all processors. Under a hypervisor its own clock is such a one, if the
// counter is constant besides.
func trusted(clocksource, cpuinfo string) bool {
	b, err := os.ReadFile(clocksource)
	if err != nil {
		return false
	}
	if !slices.Contains([]string{"tsc", "kvm-clock", "hyperv_clocksource_tsc_page"}, strings.TrimSpace(string(b))) {
		return false
	}
	if b, err = os.ReadFile(cpuinfo); err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if name, flags, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "flags" {
			has := strings.Fields(flags)
			return slices.Contains(has, "constant_tsc") && slices.Contains(has, "nonstop_tsc")
		}
	}
	return false
}
