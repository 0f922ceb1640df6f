package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	ms := func(ns ...int) (d []time.Duration) {
		for _, n := range ns {
			d = append(d, time.Duration(n)*time.Millisecond)
		}
		return d
	}
	for _, c := range []struct {
		times            []time.Duration
		min, median, p90 int
	}{
		{ms(7), 7, 7, 7},
		{ms(3, 1, 2), 1, 2, 3},
		{ms(4, 1, 3, 1000, 2, 5, 6, 7, 8, 9), 1, 5, 9},
	} {
		if got := quantile(c.times, 0).Milliseconds(); got != int64(c.min) {
			t.Errorf("minimum of %v = %d, want %d", c.times, got, c.min)
		}
		if got := median(c.times).Milliseconds(); got != int64(c.median) {
			t.Errorf("median of %v = %d, want %d", c.times, got, c.median)
		}
		if got := quantile(c.times, 0.9).Milliseconds(); got != int64(c.p90) {
			t.Errorf("p90 of %v = %d, want %d", c.times, got, c.p90)
		}
	}
}

func TestMeasureLeavesOutWhatFails(t *testing.T) {
	broken := errors.New("broken")
	var good, torn int
	c := testcase{contenders: []contender{
		{label: "good", run: func(context.Context) error { good++; return nil }, teardown: func(context.Context) error { torn++; return nil }},
		{label: "bad", run: func(context.Context) error { return broken }},
		{label: "absent", setup: func(context.Context) error { return broken }, run: func(context.Context) error { panic("ran without set-up") }},
	}}
	m := c.measure(t.Context(), 5)
	if got := len(m.results[0].times); got != 5 || good != 5+warmups || torn != 1 {
		t.Errorf("good: %d times of %d runs, torn down %d times", got, good, torn)
	}
	for _, r := range m.results[1:] {
		if !errors.Is(r.err, broken) || len(r.times) != 0 {
			t.Errorf("%s: err %v with %d times", r.label, r.err, len(r.times))
		}
	}
}
