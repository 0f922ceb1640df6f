package audit

import (
	"cmp"
	"strconv"
	"strings"
)

// version is a released version: numbers with dots, and maybe a sign that it comes
// before the release, as in 1.2.0-rc.3.
type version struct {
	numbers []int
	pre     string // "rc.3"; "" for the release itself
}

// parseVersion reads the version at the beginning of a text such as "1.1.5+ds1" or
// "v2.0.0-rc.3".
func parseVersion(s string) (version, bool) {
	s = strings.TrimPrefix(s, "v")
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	rest := ""
	if end >= 0 {
		s, rest = s[:end], s[end:]
	}
	var v version
	for part := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		n, err := strconv.Atoi(part)
		if err != nil || len(part) > 9 || len(v.numbers) == 8 {
			return version{}, false
		}
		v.numbers = append(v.numbers, n)
	}
	pre := strings.TrimLeft(rest, "-~")
	for _, word := range []string{"alpha", "beta", "rc"} {
		if strings.HasPrefix(pre, word) {
			n := strings.TrimLeft(strings.TrimPrefix(pre, word), ".")
			if end := strings.IndexFunc(n, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
				n = n[:end]
			}
			if len(n) > 9 {
				return version{}, false
			}
			v.pre = word + "." + strings.Repeat("0", 9-len(n)) + n
		}
	}
	return v, true
}

func mustVersion(s string) version {
	v, ok := parseVersion(s)
	if !ok {
		panic("not a version: " + s) // of a constant
	}
	return v
}

// compare orders versions; missing numbers are 0.
func (v version) compare(w version) int {
	for i := range max(len(v.numbers), len(w.numbers)) {
		if c := cmp.Compare(v.at(i), w.at(i)); c != 0 {
			return c
		}
	}
	switch {
	case v.pre == w.pre:
		return 0
	case v.pre == "":
		return 1
	case w.pre == "":
		return -1
	}
	return cmp.Compare(v.pre, w.pre)
}

func (v version) at(i int) int {
	if i < len(v.numbers) {
		return v.numbers[i]
	}
	return 0
}
