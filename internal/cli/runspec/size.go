package runspec

import (
	"math"
	"strconv"
	"strings"
)

const sizeFix = "write a number with an optional unit b, k, m, g, t or p (powers of 1024), such as 512m or 1.5g"

// sizeUnits are powers of 1024 by their letter.
var sizeUnits = map[byte]float64{
	'b': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40, 'p': 1 << 50,
}

// ParseSize reads a number of bytes as Docker's flags do: digits, an optional
// fraction, an optional unit (b, k, m, g, t, p, each also followed by "b" or
// "ib", in any case), powers of 1024. A negative, unrepresentable or empty size
// is an error.
func ParseSize(flag, s string) (int64, error) {
	num, unit := splitUnit(strings.ToLower(s))
	if unit < 0 || num == "" || strings.Trim(num, "0123456789.") != "" {
		if strings.HasPrefix(s, "-") {
			return 0, bad(flag, s, "a size cannot be negative", sizeFix)
		}
		return 0, bad(flag, s, "not a size", sizeFix)
	}
	if n, err := strconv.ParseInt(num, 10, 64); err == nil && unit == 1 {
		return n, nil // exact beyond the 53 bits of a float
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil {
		return 0, bad(flag, s, "not a size", sizeFix)
	}
	if f *= unit; f >= math.MaxInt64 {
		return 0, bad(flag, s, "larger than any machine's memory", sizeFix)
	}
	return int64(f), nil
}

// splitUnit cuts a lower-case size into its number and its unit's factor, -1
// for an unknown unit.
func splitUnit(s string) (num string, unit float64) {
	i := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if i < 0 {
		return s, 1
	}
	letter, rest := s[i], s[i+1:]
	factor, ok := sizeUnits[letter]
	if !ok || rest != "" && (letter == 'b' || rest != "b" && rest != "ib") {
		return s[:i], -1
	}
	return s[:i], factor
}

// parseOptionalSize is ParseSize for a flag that may be absent: "" is nil.
func parseOptionalSize(flag, s string) (*int64, error) {
	if s == "" {
		return nil, nil
	}
	n, err := ParseSize(flag, s)
	return &n, err
}
