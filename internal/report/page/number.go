package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// number is a value as report writes it on a terminal, on a line of its own with
// its unit: "31.2 ms". Things are counted: "12,300".
func number(v float64, u report.Unit) string {
	switch {
	case v == 0 && u == report.Seconds:
		return "0\u00a0s"
	case v > 0 && v < smallest, v > largest: // nobody measured that
		return strconv.FormatFloat(v, 'g', 3, 64) + "\u00a0" + string(u)
	case u == report.Number || u == "":
		return things(v)
	}
	return strings.ReplaceAll(u.Format(v), " ", "\u00a0") // a line does not end before a unit
}

// things are whole from ten on.
func things(v float64) string {
	if v < 10 && v != math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	s := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// round is number for a value of few digits, without zeros behind the point: "10 ms".
func round(v float64, u report.Unit) string {
	s := number(v, u)
	if factor, ok := strings.CutPrefix(s, "×"); ok {
		return "×" + withoutZeros(factor)
	}
	return withoutZeros(s)
}

func withoutZeros(s string) string {
	end := strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune("0123456789.,", r) })
	if end < 0 {
		end = len(s)
	}
	digits, unit := s[:end], s[end:]
	if strings.Contains(digits, ".") {
		digits = strings.TrimRight(strings.TrimRight(digits, "0"), ".")
	}
	return digits + unit
}

// span is two values: "30.1 ms to 33.4 ms".
func span(low, high float64, u report.Unit) string {
	if low == high {
		return number(low, u)
	}
	return number(low, u) + " to " + number(high, u)
}

// ratio is m's median in that of the base, "" where noise could explain the
// difference or there is none to compare with. A ratio is one already.
func ratio(m, base *report.Measure) string {
	if base == nil || m == base || m.Unit != base.Unit || m.Unit == report.Ratio || m.Estimated || base.Estimated || !report.Separated(m, base) || base.Median() == 0 {
		return ""
	}
	return times(m.Median() / base.Median())
}

// times is a ratio with as many digits as ratios deserve.
func times(r float64) string {
	switch {
	case r > largest:
		return "×∞" // of next to nothing
	case r >= 9.95:
		return "×" + things(math.Round(r))
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
