package audit

import (
	_ "embed" // the advisories
	"encoding/json"
	"fmt"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

//go:embed advisories.json
var advisoriesJSON []byte

// Advisories are published weaknesses of what containers rely on.
type Advisories struct {
	// Date is the day on which they were collected: later ones are not known.
	Date    string     `json:"date"`
	Entries []Advisory `json:"entries"`
}

// Advisory is one weakness of one product.
type Advisory struct {
	Product  string          `json:"product"` // as Product.Name
	ID       string          `json:"id"`      // its CVE
	Severity report.Severity `json:"severity"`
	// Introduced is the first version that has it, "" for the first of all. Fixed
	// are the versions that no longer have it, one for each branch: the numbers but
	// the last. A branch between two of them was never fixed.
	Introduced string   `json:"introduced,omitempty"`
	Fixed      []string `json:"fixed"`
	// Debian are the packages' versions that have a fix of Debian's own, by release.
	Debian  map[string]string `json:"debian,omitempty"`
	Enables string            `json:"enables"`
	Source  string            `json:"source"`
}

// LoadAdvisories returns those that are part of the program.
func LoadAdvisories() (*Advisories, error) {
	var a Advisories
	if err := json.Unmarshal(advisoriesJSON, &a); err != nil {
		return nil, fmt.Errorf("advisories: %w", err)
	}
	return &a, nil
}

// Product is a program on the host that containers rely on.
type Product struct {
	Name    string // "runc", "linux"
	Version string // as it says itself
	Path    string
	// Package is the version of the distribution's package that it is from, ""
	// where none is known.
	Package string
	// Foreign tells that a distribution may have changed it, and nobody knows how.
	Foreign bool
	// Failed says why the version is not known.
	Failed string
}

// version is what can be compared. gVisor's releases are named after days,
// release-20260824.0, and what Go builds from its module has the commit's day in
// v0.0.0-20260905035102-160fafc42237 (go.dev/ref/mod, "Pseudo-versions").
func (p Product) version() (version, bool) {
	if p.Name != "runsc" {
		return parseVersion(p.Version)
	}
	text := p.Version
	if day, pseudo := strings.CutPrefix(text, "v0.0.0-"); pseudo {
		text, _, _ = strings.Cut(day, "-")
		text = text[:min(len(text), len("20260905"))] + ".0"
	}
	v, ok := parseVersion(text)
	const first = 20180502 // gVisor was published
	return v, ok && v.at(0) >= first
}

// judge says whether a product has the weakness.
func (a *Advisory) judge(p Product, debian string) answer {
	where := report.Evidence{Call: p.Path, Value: p.Version}
	from := []report.Evidence{where}
	if p.Package != "" {
		from = append(from, report.Evidence{Call: "dpkg: package", Value: p.Package})
	}
	v, ok := p.version()
	switch {
	case p.Failed != "":
		return unknown(p.Failed, where)
	case !ok:
		return unknown(fmt.Sprintf("%.60q is no version that can be compared", p.Version), from...)
	case a.Introduced != "" && v.compare(mustVersion(a.Introduced)) < 0:
		return held(p.Version+", which is older than the weakness", from...)
	case a.fixedIn(v):
		return held(p.Version+" has the fix", from...)
	}
	if fixed := a.Debian[debian]; fixed != "" && p.Package != "" {
		if debianCompare(p.Package, fixed) >= 0 {
			return held("Debian's "+p.Package+" has a fix of its own", from...)
		}
		return leaked(fmt.Sprintf("Debian's %s; %s has the fix", p.Package, fixed), from...)
	}
	if p.Package != "" || p.Foreign {
		return unknown(fmt.Sprintf("%s is below the fixed %s, but the distribution may have a fix of its own; its security tracker tells", p.Version, strings.Join(a.Fixed, ", ")), from...)
	}
	return leaked(fmt.Sprintf("%s; %s have the fix", p.Version, strings.Join(a.Fixed, ", ")), from...)
}

// fixedIn reports whether a version is that of its branch that has the fix, or
// later, or of a later branch than all that were fixed.
func (a *Advisory) fixedIn(v version) bool {
	last := version{}
	for _, s := range a.Fixed {
		f := mustVersion(s)
		if v.sameBranch(f) {
			return v.compare(f) >= 0
		}
		if f.compare(last) > 0 {
			last = f
		}
	}
	return v.compare(last) > 0
}

// sameBranch reports whether the first two numbers are equal.
func (v version) sameBranch(w version) bool { return v.at(0) == w.at(0) && v.at(1) == w.at(1) }

// debianCompare orders versions of Debian packages (deb-version(7)).
func debianCompare(a, b string) int {
	ea, ra := epoch(a)
	eb, rb := epoch(b)
	if c := debianPart(ea, eb); c != 0 {
		return c
	}
	ua, da := revision(ra)
	ub, db := revision(rb)
	if c := debianPart(ua, ub); c != 0 {
		return c
	}
	return debianPart(da, db)
}

func epoch(s string) (epoch, rest string) {
	if e, r, ok := strings.Cut(s, ":"); ok {
		return e, r
	}
	return "0", s
}

func revision(s string) (upstream, debian string) {
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		return s[:i], s[i+1:]
	}
	return s, "0"
}

// debianPart compares by turns what is not digits, where ~ comes before the end and
// letters before all else, and numbers.
func debianPart(a, b string) int {
	order := func(s string, i int) int {
		switch {
		case i >= len(s) || s[i] >= '0' && s[i] <= '9':
			return 0
		case s[i] == '~':
			return -1
		case s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z':
			return int(s[i])
		}
		return int(s[i]) + 256
	}
	digit := func(s string, i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		for i < len(a) && !digit(a, i) || j < len(b) && !digit(b, j) {
			if c := order(a, i) - order(b, j); c != 0 {
				return c
			}
			if i < len(a) {
				i++
			}
			if j < len(b) {
				j++
			}
		}
		na, nb := "", ""
		for ; digit(a, i); i++ {
			na += a[i : i+1]
		}
		for ; digit(b, j); j++ {
			nb += b[j : j+1]
		}
		na, nb = strings.TrimLeft(na, "0"), strings.TrimLeft(nb, "0")
		if c := len(na) - len(nb); c != 0 {
			return c
		}
		if c := strings.Compare(na, nb); c != 0 {
			return c
		}
	}
	return 0
}
