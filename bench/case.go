package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	reports "github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// warmups is how many rounds run before those that count.
const warmups = 2

// contender does what a case measures, its own way. Only run is timed. before
// and after prepare and clean up around every run, setup and teardown around
// the case; each may be nil.
type contender struct {
	label           string
	note            string // what it does less, or otherwise, than the others
	setup, teardown func(context.Context) error
	before, after   func(context.Context) error
	run             func(context.Context) error
	// timed is in place of run for what tells its time itself.
	timed func(context.Context) (time.Duration, error)
	// sampled is in place of run for what finds out more than a time.
	sampled func(context.Context) (sample, error)
}

// testcase is one thing that is measured.
type testcase struct {
	name  string // for -only
	title string
	about string
	// share divides the number of rounds: slow cases run fewer.
	share      int
	bytes      int64 // that each run moves, 0 if that is not what is measured
	contenders []contender
	// table writes the results of contenders that are sampled.
	table func(*strings.Builder, []result)
}

// result is what one contender achieved in a case.
type result struct {
	label, note string
	times       []time.Duration
	samples     []sample // in the place of times
	err         error    // why it was left out, nil if it was not
}

// measured is a case with its results, in the contenders' order.
type measured struct {
	testcase
	results []result
}

// measure lets all contenders take turns.
func (c testcase) measure(ctx context.Context, rounds int) measured {
	rounds = max(3, rounds/max(1, c.share))
	m := measured{testcase: c, results: make([]result, len(c.contenders))}
	for i, k := range c.contenders {
		m.results[i] = result{label: k.label, note: k.note}
		if k.setup != nil {
			m.results[i].err = k.setup(ctx)
		}
	}
	warm := warmups
	if c.table != nil {
		warm = 1 // each round is long
	}
	for round := -warm; round < rounds && ctx.Err() == nil; round++ {
		for _, i := range reports.Order(len(c.contenders), round+warm) {
			r := &m.results[i]
			if r.err != nil {
				continue
			}
			d, s, err := c.contenders[i].once(ctx)
			if err != nil {
				r.err = err
				continue
			}
			switch {
			case round < 0:
			case c.contenders[i].sampled != nil:
				r.samples = append(r.samples, s)
			default:
				r.times = append(r.times, d)
			}
		}
	}
	// The caller's context may be over; what was set up must go all the same.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
	defer cancel()
	for i, k := range c.contenders {
		if k.teardown == nil {
			continue
		}
		if err := k.teardown(clean); err != nil && m.results[i].err == nil {
			fmt.Fprintf(os.Stderr, "  %s: clean up: %v\n", k.label, err)
		}
	}
	return m
}

// once runs the contender one time.
func (k contender) once(ctx context.Context) (d time.Duration, s sample, err error) {
	if k.before != nil {
		if err := k.before(ctx); err != nil {
			return 0, s, err
		}
	}
	start := time.Now()
	switch {
	case k.sampled != nil:
		s, err = k.sampled(ctx)
	case k.timed != nil:
		d, err = k.timed(ctx)
	default:
		err = k.run(ctx)
		d = time.Since(start)
	}
	if k.after != nil {
		if e := k.after(ctx); err == nil {
			err = e
		}
	}
	return d, s, err
}

// figure is what has a middle.
type figure interface{ ~int64 | ~float64 }

// quantile is the smallest figure that at least the fraction q of them do not
// exceed. It panics if there are none.
func quantile[T figure](all []T, q float64) T {
	return reports.Quantile(slices.Sorted(slices.Values(all)), q)
}

// median is the middle one, or the mean of the two in the middle.
func median[T figure](all []T) T {
	s := slices.Sorted(slices.Values(all))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}
