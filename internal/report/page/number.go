package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// prefix is a step of a unit.
type prefix struct {
	factor float64
	name   string
}

var prefixes = map[report.Unit][]prefix{
	report.Seconds:        {{1e-9, "ns"}, {1e-6, "µs"}, {1e-3, "ms"}, {1, "s"}},
	report.Bytes:          {{1, "B"}, {1e3, "kB"}, {1e6, "MB"}, {1e9, "GB"}, {1e12, "TB"}},
	report.BytesPerSecond: {{1, "B/s"}, {1e3, "kB/s"}, {1e6, "MB/s"}, {1e9, "GB/s"}, {1e12, "TB/s"}},
	report.PerSecond:      {{1, "/s"}},
	report.Number:         {{1, ""}},
}

// number is a value with three digits and the unit that a person would use:
// "31.2 ms". Counts are whole: "12,300 /s".
func number(v float64, u report.Unit) string {
	p := step(v, u)
	s := digits(v/p.factor, p.factor == 1 && (u == report.Number || u == report.PerSecond || u == report.Bytes))
	if p.name == "" {
		return s
	}
	return s + "\u00a0" + p.name // a line does not end before a unit
}

// round is a number that has few digits, without those that are zero behind the
// point: "10 ms".
func round(v float64, u report.Unit) string {
	p := step(v*1.0001, u)
	if v == 0 {
		p = step(0, u)
	}
	s := strconv.FormatFloat(v/p.factor, 'g', 3, 64)
	if f := v / p.factor; f >= 1000 && f < 1e15 {
		s = thousands(int64(math.Round(f)))
	}
	if strings.HasSuffix(s, ",000") && p.name != "" {
		s = strings.TrimSuffix(s, ",000") + "k"
	}
	return strings.TrimRight(s+"\u00a0"+p.name, "\u00a0")
}

// step is the largest that leaves at least one digit before the point.
func step(v float64, u report.Unit) prefix {
	all := prefixes[u]
	if len(all) == 0 {
		return prefix{1, ""}
	}
	if v == 0 {
		return prefix{1, unitOf(all)}
	}
	p := all[0]
	for _, next := range all[1:] {
		if v >= next.factor*0.9995 {
			p = next
		}
	}
	return p
}

// unitOf is the name of the unit itself.
func unitOf(all []prefix) string {
	for _, p := range all {
		if p.factor == 1 {
			return p.name
		}
	}
	return ""
}

// digits are the first three of v. All of a whole number are shown.
func digits(v float64, whole bool) string {
	if v == 0 {
		return "0"
	}
	if whole && v >= 10 || v >= 99.95 {
		if v >= 1e15 {
			return strconv.FormatFloat(v, 'g', 3, 64)
		}
		return thousands(int64(math.Round(v)))
	}
	if whole && v == math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64) // 9.996 has one digit before the point less than 10.0
	after := 2 - int(math.Floor(math.Log10(rounded*1.0000001)))
	return strconv.FormatFloat(rounded, 'f', max(0, min(after, 9)), 64)
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span is two values in the larger one's unit: "30.1–33.4 ms".
func span(low, high float64, u report.Unit) string {
	if low == high {
		return number(low, u)
	}
	p := step(high, u)
	if low > 0 && step(low, u) != p || len(prefixes[u]) < 2 {
		return number(low, u) + " – " + number(high, u)
	}
	return digits(low/p.factor, false) + "–" + number(high, u)
}

// ratio is m's median in that of the base, "" where noise could explain the
// difference or there is none to compare with.
func ratio(m, base *report.Measure) string {
	if base == nil || m == base || m.Unit != base.Unit || m.Estimated || base.Estimated || !report.Separated(m, base) || base.Median() == 0 {
		return ""
	}
	return times(m.Median() / base.Median())
}

// times is a ratio with as many digits as ratios deserve.
func times(r float64) string {
	switch {
	case r >= 99.5:
		return "×" + digits(math.Round(r), true)
	case r >= 9.95:
		return fmt.Sprintf("×%.0f", r)
	case r >= 1.995:
		return fmt.Sprintf("×%.1f", r)
	case r >= 0.0995:
		return fmt.Sprintf("×%.2f", r)
	}
	return "×" + strconv.FormatFloat(r, 'g', 2, 64)
}

// value is what a person reads of a measure with numbers.
func value(m *report.Measure) string {
	if m.Estimated {
		return "≈\u00a0" + number(m.Median(), m.Unit)
	}
	return number(m.Median(), m.Unit)
}
