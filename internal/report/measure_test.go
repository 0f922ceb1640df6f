package report

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func of(samples ...float64) *Measure {
	return &Measure{ID: "a.b", Unit: Seconds, Better: Less, Samples: samples}
}

func TestQuantile(t *testing.T) {
	m := of(5, 1, 4, 2, 3)
	for q, want := range map[float64]float64{0: 1, 0.2: 1, 0.21: 2, 0.5: 3, 0.99: 5, 1: 5} {
		if got := m.Quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	many := make([]int, 200)
	for i := range many {
		many[i] = 1 + i
	}
	for q, want := range map[float64]int{0: 1, 0.5: 100, 0.99: 198, 1: 200} {
		if got := Quantile(many, q); got != want {
			t.Errorf("quantile %v of 200: %v, want %v", q, got, want)
		}
	}
	if !slices.Equal(m.Samples, []float64{5, 1, 4, 2, 3}) {
		t.Errorf("the samples were sorted: %v", m.Samples)
	}
	if got := of().Median(); !math.IsNaN(got) {
		t.Errorf("the median of nothing is %v", got)
	}
	for want, m := range map[float64]*Measure{7: of(7), 2: of(3, 1), 3: of(5, 1, 3), 2.5: of(1, 9, 2, 3), math.MaxFloat64: of(math.MaxFloat64, math.MaxFloat64)} {
		if got := m.Median(); got != want {
			t.Errorf("the median of %v is %v, want %v", m.Samples, got, want)
		}
	}
}

// TestInterval compares with the tables of the sign test: n, and which order
// statistic from each end bounds the median with 95 %.
func TestInterval(t *testing.T) {
	for n, k := range map[int]int{6: 1, 8: 1, 9: 2, 10: 2, 15: 4, 20: 6, 25: 8, 50: 18, 100: 40} {
		var m Measure
		for i := range n {
			m.Samples = append(m.Samples, float64(n-i))
		}
		low, high, ok := m.Interval()
		if !ok || low != float64(k) || high != float64(n-k+1) {
			t.Errorf("%d samples: %v to %v (%v), want %d to %d", n, low, high, ok, k, n-k+1)
		}
	}
	if low, high, ok := of(1, 2, 3, 4, 5).Interval(); ok || low != 1 || high != 5 {
		t.Errorf("five samples: %v to %v (%v)", low, high, ok)
	}
}

// TestIntervalCovers draws from a skewed distribution whose median is known.
func TestIntervalCovers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const rounds = 2000
	for _, n := range []int{6, 11, 20, 41} {
		covered := 0
		for range rounds {
			var m Measure
			for range n {
				m.Samples = append(m.Samples, r.ExpFloat64())
			}
			if low, high, _ := m.Interval(); low <= math.Ln2 && math.Ln2 <= high {
				covered++
			}
		}
		if part := float64(covered) / rounds; part < 0.94 {
			t.Errorf("%d samples: %.3f of the intervals hold the median", n, part)
		}
	}
}

func TestBest(t *testing.T) {
	fast, alike, slow := of(1, 2, 3, 4, 5, 6), of(3, 4, 5, 6, 7, 8), of(20, 21, 22, 23, 24, 25)
	document := func(all ...*Measure) *Document {
		var d Document
		for _, m := range all {
			d.Reports = append(d.Reports, Report{Measures: []Measure{*m}})
		}
		return &d
	}
	baseline := func(d *Document) *Document {
		d.Reports[0].Subject.Boundary = Host
		return d
	}
	few, guess, more := of(0.1, 0.1), *fast, *slow
	guess.Estimated, more.Better = true, More
	for _, tt := range []struct {
		name string
		d    *Document
		want []int
	}{
		{"one is faster", document(slow, fast), []int{1}},
		{"two that noise cannot separate", document(fast, slow, alike, slow), []int{0, 2}},
		{"most are alike", document(fast, slow, alike), nil},
		{"all alike", document(fast, alike), nil},
		{"one alone", document(fast), nil},
		{"too few samples to beat", document(fast, slow, few), []int{0}},
		{"the baseline takes no part", baseline(document(fast, slow, alike)), []int{2}},
		{"an estimate takes no part", document(slow, fast, &guess), []int{1}},
		{"more is better", document(&more, of(1, 1, 1, 1, 1, 1)), nil},
	} {
		if tt.name == "more is better" {
			for i := range tt.d.Reports {
				tt.d.Reports[i].Measures[0].Better = More
			}
			tt.want = []int{0}
		}
		if got := tt.d.Best("a.b"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
