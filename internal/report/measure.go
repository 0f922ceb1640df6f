package report

import (
	"fmt"
	"math"
	"slices"
)

// Fact is something that was found out, with its name: "processors", "4 × EPYC".
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Measure is one cell of a comparison: a number with its spread, or a text, of one
// subject. What could not be measured has neither, and a reason.
type Measure struct {
	// ID is stable: "start.output". The part before the first dot is its group.
	ID string `json:"id"`
	// Name is the ID in a person's words: "to first output".
	Name string `json:"name"`
	// Unit is that of the samples, "" for a text.
	Unit Unit `json:"unit,omitempty"`
	// Better is which of two numbers a user wants, "" where neither is better, and for
	// one that is of something else than those of the other subjects.
	Better Better `json:"better,omitempty"`
	// Samples are all that was measured, in the order in which it was.
	Samples []float64 `json:"samples,omitempty"`
	// Text is the value of a measure without a unit.
	Text string `json:"text,omitempty"`
	// Estimated: the number was computed from others and not seen.
	Estimated bool `json:"estimated,omitempty"`
	// Note is what a reader has to know of the value, such as the limit that was
	// reached; Reason is why there is none.
	Note   string `json:"note,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Parts are what the value is made of: each feature of a kernel and how it
	// answered, the processes that hold the memory.
	Parts []Fact `json:"parts,omitempty"`
}

// Unit is the unit of a number. Only base units are kept; how they are shown is
// for who shows them.
type Unit string

// The units.
const (
	Seconds        Unit = "s"
	Bytes          Unit = "bytes"
	BytesPerSecond Unit = "bytes/s"
	PerSecond      Unit = "1/s"
	Number         Unit = "1"     // of things
	Ratio          Unit = "times" // what something else is
)

var units = []Unit{"", Seconds, Bytes, BytesPerSecond, PerSecond, Number, Ratio}

// Better is a direction.
type Better string

// The directions.
const (
	Less Better = "less"
	More Better = "more"
)

// Measured reports whether there are numbers.
func (m *Measure) Measured() bool { return len(m.Samples) > 0 }

// Group is the first part of the ID.
func (m *Measure) Group() string { return group(m.ID) }

// Quantile is the smallest sample that at least the fraction q of the samples do
// not exceed, and NaN where there is none. 0 gives the least, 1 the greatest.
func (m *Measure) Quantile(q float64) float64 {
	if !m.Measured() {
		return math.NaN()
	}
	return Quantile(slices.Sorted(slices.Values(m.Samples)), q)
}

// Median is the middle sample, of an even number the mean of the two in the middle, and
// NaN where there is none.
func (m *Measure) Median() float64 {
	n := len(m.Samples)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(m.Samples))
	low, high := sorted[(n-1)/2], sorted[n/2]
	return low + (high-low)/2 // a sum may be more than there are numbers for
}

// enoughForP99 is how many samples have a 99th percentile worth the name. That of
// fewer than a hundred is the greatest of them; of fewer than these it is called so.
const enoughForP99 = 10

// P99 is the slow end of times. ok is false of anything else, whose 99th percentile
// may be the good end, and of too few samples.
func (m *Measure) P99() (p99 float64, ok bool) {
	return m.Quantile(0.99), m.Unit == Seconds && len(m.Samples) >= enoughForP99
}

// Quantile is the smallest of sorted values that at least the fraction q of them do
// not exceed. It panics where there is none.
func Quantile[T any](sorted []T, q float64) T {
	i := int(math.Ceil(q*float64(len(sorted)) - 1e-9))
	return sorted[min(max(i, 1), len(sorted))-1]
}

// Interval is where the median of all that could have been measured lies with a
// confidence of at least 95 %, whatever the distribution: from one sample to
// another, by the binomial distribution of how many fall below the median (David
// and Nagaraja, Order Statistics, 7.1). Fewer than six samples cannot say: ok is
// false, and the interval is that of all samples.
func (m *Measure) Interval() (low, high float64, ok bool) {
	sorted := slices.Sorted(slices.Values(m.Samples))
	n := len(sorted)
	if n == 0 {
		return math.NaN(), math.NaN(), false
	}
	// below is P(fewer than k+1 of n samples lie below the median).
	below, k := 0.0, 0
	for term := math.Pow(0.5, float64(n)); k < n/2; k++ {
		if below+term > 0.025 {
			break
		}
		below += term
		term *= float64(n-k) / float64(k+1)
	}
	if k == 0 {
		return sorted[0], sorted[n-1], false
	}
	return sorted[k-1], sorted[n-k], true
}

// Separated reports whether a and b differ by more than their noise: whether the
// intervals of their medians are known and do not meet.
func Separated(a, b *Measure) bool {
	aLow, aHigh, ok := a.Interval()
	bLow, bHigh, ok2 := b.Interval()
	return ok && ok2 && (aHigh < bLow || bHigh < aLow)
}

// Measure is the one with an ID, nil where there is none.
func (r *Report) Measure(id string) *Measure {
	for i := range r.Measures {
		if r.Measures[i].ID == id {
			return &r.Measures[i]
		}
	}
	return nil
}

// Best are the indexes of the reports whose measure no other is better than by
// more than the noise. There are none where more than half of them are alike: a mark
// that most have points at nothing. What nothing isolates, estimates, and those with
// too few samples to tell take no part.
func (d *Document) Best(id string) (best []int) {
	var all []int
	for i := range d.Reports {
		m := d.Reports[i].Measure(id)
		if m == nil || m.Better == "" || m.Estimated || d.Reports[i].Subject.Boundary == Host {
			continue
		}
		if _, _, ok := m.Interval(); ok {
			all = append(all, i)
		}
	}
	for _, i := range all {
		if !slices.ContainsFunc(all, func(j int) bool { return d.Reports[j].Measure(id).beats(d.Reports[i].Measure(id)) }) {
			best = append(best, i)
		}
	}
	if 2*len(best) > len(all) {
		return nil
	}
	return best
}

// beats reports whether m is better than other by more than the noise.
func (m *Measure) beats(other *Measure) bool {
	return Separated(m, other) && (m.Median() < other.Median()) == (m.Better == Less)
}

func (m *Measure) check() error {
	switch {
	case !slices.Contains(units, m.Unit):
		return fmt.Errorf("%w: unit %.20q", ErrMalformed, m.Unit)
	case m.Better != "" && m.Better != Less && m.Better != More:
		return fmt.Errorf("%w: better is %.20q", ErrMalformed, m.Better)
	case len(m.Samples) > MaxSamples || len(m.Parts) > MaxFindings:
		return fmt.Errorf("%w: a list is too long", ErrMalformed)
	case m.Unit == "" && m.Measured():
		return fmt.Errorf("%w: %s has numbers without a unit", ErrMalformed, m.ID)
	case m.Unit != "" && m.Text != "":
		return fmt.Errorf("%w: %s is a number and a text", ErrMalformed, m.ID)
	case !m.Measured() && m.Text == "" && m.Reason == "":
		return fmt.Errorf("%w: %s has no value for no reason", ErrMalformed, m.ID)
	case (m.Measured() || m.Text != "") && m.Reason != "":
		return fmt.Errorf("%w: %s has a value, and a reason why there is none", ErrMalformed, m.ID)
	}
	if err := CheckID(m.ID); err != nil {
		return err
	}
	for _, s := range m.Samples {
		if s < 0 || math.IsInf(s, 0) || math.IsNaN(s) {
			return fmt.Errorf("%w: %s has the sample %v", ErrMalformed, m.ID, s)
		}
	}
	for _, p := range m.Parts {
		if err := texts(p.Name, p.Value); err != nil {
			return err
		}
	}
	return texts(m.Name, m.Text, m.Note, m.Reason)
}
