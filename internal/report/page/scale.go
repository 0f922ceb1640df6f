package page

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// scale maps values to places on a plot, in percent of its width.
type scale struct {
	log    bool
	lo, hi float64
	ticks  []float64
}

const (
	// logFrom is how many times the least value the greatest is where a linear scale
	// would leave the small ones no room: times are told apart further down than
	// what there is an amount of, which is drawn as bars as long as possible.
	logFrom       = 12
	logAmountFrom = 100
	// margin is left at both ends for marks, in percent.
	margin   = 1.0
	maxTicks = 4
	// Smaller values count as nothing, larger ones lie at the end: no sample that
	// somebody made up has a scale of its own.
	smallest, largest = 1e-12, 1e18
)

// newScale is for values that are not negative. A linear one begins at zero.
func newScale(least, greatest float64, u report.Unit) scale {
	if greatest < smallest {
		return scale{hi: 1, ticks: []float64{0}}
	}
	greatest = min(greatest, largest)
	least = min(least, greatest)
	from := float64(logFrom)
	if u != report.Seconds {
		from = logAmountFrom
	}
	if least >= smallest && greatest/least > from {
		return logScale(least, greatest)
	}
	s := scale{hi: greatest}
	step := niceStep(greatest / maxTicks)
	for i := 0; float64(i)*step <= greatest*1.0001; i++ {
		s.ticks = append(s.ticks, float64(i)*step)
	}
	return s
}

// niceStep is the least of 1, 2, 5, 10, … that is at least v.
func niceStep(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if f*p >= v*0.9999 {
			return f * p
		}
	}
	return 10 * p
}

// logScale begins and ends at a round number.
func logScale(least, greatest float64) scale {
	s := scale{log: true, lo: below(least), hi: niceStep(greatest)}
	for _, steps := range [][]float64{{1, 2, 5}, {1, 3}, {1}} {
		if s.ticks = s.powers(steps, 1); len(s.ticks) <= maxTicks {
			return s
		}
	}
	for skip := 2; len(s.ticks) > maxTicks; skip++ {
		s.ticks = s.powers([]float64{1}, skip)
	}
	return s
}

// below is the greatest of 1, 2, 5, 10, … that is at most v.
func below(v float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{5, 2} {
		if f*p <= v*1.0001 {
			return f * p
		}
	}
	return p
}

// powers are the steps of every so many powers of ten within the scale.
func (s scale) powers(steps []float64, every int) (out []float64) {
	first, last := int(math.Floor(math.Log10(s.lo))), int(math.Ceil(math.Log10(s.hi)))
	for e := first; e <= last; e += every {
		for _, f := range steps {
			if v := f * math.Pow(10, float64(e)); v >= s.lo*0.9999 && v <= s.hi*1.0001 {
				out = append(out, v)
			}
		}
	}
	return out
}

// at is the place of a value. On a logarithmic scale zero is at the left end.
func (s scale) at(v float64) float64 {
	f := v / s.hi
	if s.log {
		f = 0
		if v > s.lo {
			f = math.Log(v/s.lo) / math.Log(s.hi/s.lo)
		}
	}
	return margin + (100-2*margin)*min(max(f, 0), 1)
}

// percent writes a place for an attribute of SVG.
func percent(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) + "%" }

// tick is a labelled line across a plot.
type tick struct {
	X, Label string
	Anchor   string // which end of the label is at X
}

// labels are the ticks, with labels where there is room for them: each character
// takes so many percent of the plot's width.
func (s scale) labels(u report.Unit, character float64) (out []tick) {
	free := math.Inf(-1)
	for _, v := range s.ticks {
		x := s.at(v)
		t := tick{percent(x), round(v, u), "middle"}
		half := character * float64(utf8.RuneCountInString(t.Label)) / 2
		left := x - half
		switch {
		case x < half:
			t.Anchor, left = "start", x
		case x > 100-half:
			t.Anchor, left = "end", x-2*half
		}
		if left < free {
			t.Label = ""
		} else {
			free = left + 2*half + character
		}
		out = append(out, t)
	}
	return out
}
