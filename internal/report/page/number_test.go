package page

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

func TestNumber(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		u    report.Unit
		want string
	}{
		{0, report.Seconds, "0 s"}, {0.0312, report.Seconds, "31.2 ms"}, {0.9996, report.Seconds, "1.00 s"}, {9.996, report.Seconds, "10.0 s"},
		{99.96, report.Seconds, "100 s"}, {12345, report.Seconds, "12300 s"}, {6.1e-8, report.Seconds, "61.0 ns"}, {5e-10, report.Seconds, "0.500 ns"},
		{1.9e-6, report.Seconds, "1.90 µs"}, {0, report.Bytes, "0 B"}, {512, report.Bytes, "512 B"}, {4.1e6, report.Bytes, "4.10 MB"}, {1e12, report.Bytes, "1.00 TB"},
		{2.34e9, report.BytesPerSecond, "2.34 GB/s"}, {91234.5, report.PerSecond, "91.2 k/s"}, {812, report.Number, "812"}, {3, report.Number, "3"},
		{2.5, report.Number, "2.50"}, {1234567, report.Number, "1,234,567"}, {1.7e308, report.Number, "1.7e+308 1"}, {5e-324, report.Seconds, "4.94e-324 s"},
	} {
		if got := strings.ReplaceAll(number(tt.v, tt.u), "\u00a0", " "); got != tt.want {
			t.Errorf("%g %s: %q, want %q", tt.v, tt.u, got, tt.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for _, tt := range []struct {
		low, high float64
		want      string
	}{
		{0.0301, 0.0334, "30.1 ms to 33.4 ms"}, {0.9, 1.1, "900 ms to 1.10 s"}, {0, 0.002, "0 s to 2.00 ms"}, {0.5, 0.5, "500 ms"},
	} {
		if got := strings.ReplaceAll(span(tt.low, tt.high, report.Seconds), "\u00a0", " "); got != tt.want {
			t.Errorf("%g to %g: %q, want %q", tt.low, tt.high, got, tt.want)
		}
	}
}

func TestRatio(t *testing.T) {
	ten := func(v float64) *report.Measure {
		m := &report.Measure{Unit: report.Seconds}
		for i := range 10 {
			m.Samples = append(m.Samples, v*(1+float64(i)/1000))
		}
		return m
	}
	few := &report.Measure{Unit: report.Seconds, Samples: []float64{9, 9, 9}}
	guess := ten(9)
	guess.Estimated = true
	other := ten(9)
	other.Unit = report.Bytes
	for _, tt := range []struct {
		m, base *report.Measure
		want    string
	}{
		{ten(13), ten(10), "×1.30"}, {ten(5), ten(10), "×0.50"}, {ten(300), ten(1), "×300"}, {ten(45), ten(1), "×45"}, {ten(3.2), ten(1), "×3.2"},
		{ten(1), ten(80), "×0.013"}, {ten(10.001), ten(10), ""}, {few, ten(1), ""}, {guess, ten(1), ""}, {other, ten(1), ""}, {ten(1), ten(0), ""}, {ten(1e18), ten(1e-12), "×∞"}, {ten(1), nil, ""},
	} {
		if got := ratio(tt.m, tt.base); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestP99: what the page calls so is of times, and of enough samples, as on the
// terminal.
func TestP99(t *testing.T) {
	for _, tt := range []struct {
		unit    report.Unit
		samples int
		want    bool
	}{{report.Seconds, 9, false}, {report.Seconds, 10, true}, {report.Seconds, 3, false}, {report.PerSecond, 100, false}, {report.Number, 100, false}} {
		m := &report.Measure{ID: "start.exit", Unit: tt.unit}
		for n := range tt.samples {
			m.Samples = append(m.Samples, float64(n))
		}
		cell := slices.ContainsFunc(newCell(m, nil, false).Small, func(s string) bool { return strings.HasPrefix(s, "p99") })
		if detail := newDetailMeasure(m).P99 != ""; cell != tt.want || detail != tt.want {
			t.Errorf("%d samples of %q: in the table %v, in the details %v, want %v", tt.samples, tt.unit, cell, detail, tt.want)
		}
	}
}

// TestScale: ticks are few, round, in order and on the scale, and every value has a
// place on it, whatever somebody made up.
func TestScale(t *testing.T) {
	for _, tt := range []struct {
		least, greatest float64
		unit            report.Unit
		log             bool
		want            string
	}{
		{0.002, 9.8, report.Seconds, true, "10 ms,100 ms,1 s,10 s"},
		{0.03, 0.31, report.Seconds, false, "0 s,100 ms,200 ms,300 ms"},
		{6e-6, 1.3e-4, report.Seconds, true, "10 µs,30 µs,100 µs"},
		{0, 2.53e8, report.Bytes, false, "0 B,100 MB,200 MB"},
		{1.5e4, 9.4e4, report.PerSecond, false, "0/s,50 k/s"},
		{0.9, 2.1, report.Ratio, false, "×0,×1,×2"},
		{38, 4000, report.Number, true, "100,1,000"},
		{38, 600, report.Number, false, "0,200,400,600"},
		{1e-9, 1e9, report.Seconds, true, "1 ns,100 µs,10 s,1000000 s"},
		{5e-324, 1.7e308, report.Seconds, false, ""},
		{0, 5e-324, report.Seconds, false, "0 s"},
		{0, 0, report.Bytes, false, "0 B"},
		{math.MaxFloat64, math.MaxFloat64, report.Number, false, ""},
	} {
		s := newScale(tt.least, tt.greatest, tt.unit)
		if s.log != tt.log {
			t.Errorf("%g to %g: logarithmic is %v", tt.least, tt.greatest, s.log)
		}
		var labels []string
		for _, l := range s.labels(tt.unit, 0) {
			labels = append(labels, strings.ReplaceAll(l.Label, "\u00a0", " "))
		}
		if got := strings.Join(labels, ","); tt.want != "" && got != tt.want {
			t.Errorf("%g to %g %s: ticks %s, want %s", tt.least, tt.greatest, tt.unit, got, tt.want)
		}
		if len(labels) > maxTicks+1 {
			t.Errorf("%g to %g: %d ticks", tt.least, tt.greatest, len(labels))
		}
		for _, v := range []float64{0, tt.least, tt.greatest, math.MaxFloat64} {
			if x := s.at(v); !(x >= margin && x <= 100-margin) {
				t.Errorf("%g on the scale from %g to %g is at %g", v, tt.least, tt.greatest, x)
			}
		}
	}
}

// TestLabelsKeepApart: a label that would touch the one before it is left out, its
// line stays.
func TestLabelsKeepApart(t *testing.T) {
	s := newScale(0.03, 0.31, report.Seconds)
	var shown []string
	for _, l := range s.labels(report.Seconds, 8) {
		shown = append(shown, l.Label)
	}
	if got := strings.ReplaceAll(strings.Join(shown, "|"), "\u00a0", " "); got != "0 s||200 ms|" {
		t.Errorf("got %q", got)
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain, wörld 日本 🐳 'x' \"y\"": "plain, wörld 日本 🐳 'x' \"y\"", "a\u202eb": `a\u202eb`, "\x1b[2J": `\x1b[2J`, "a\u00a0b": `a\u00a0b`, "\U000e0041": `\U000e0041`, "a\nb": `a\nb`,
	} {
		if got := visible(in); got != want {
			t.Errorf("visible(%q) = %q, want %q", in, got, want)
		}
	}
}
