package page

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// matrix is things × subjects: doors, or features of a kernel. Differ is what a
// reader looks for, Alike what is as it should be everywhere.
type matrix struct {
	Name      string
	Counts    []counts
	Differ    []matrixGroup
	Alike     []matrixGroup
	AlikeRows int
	Fold      string // what AlikeRows are
	Seen      bool   // there is one subject only, and room for what was seen and what helps
	Span      int    // all columns
}

// counts is one line above a matrix.
type counts struct {
	Name   string
	Class  string
	Values []int
}

type matrixGroup struct {
	Title string
	Rows  []matrixRow
}

type matrixRow struct {
	ID, Name string
	Cells    []matrixCell
	Seen     string
	Fix      string
}

type matrixCell struct {
	Class, Text string
	Title       string // the whole text, or what it means
	Href        string // of the finding
}

// door is one door behind all subjects.
type door struct {
	id, name    string
	consequence report.Consequence
	findings    []*report.Finding // nil where it was not looked at, or nothing was
	index       []int             // of the finding in its report
	isolated    []*report.Finding // findings without that of the baseline
}

// loud reports whether a door is open or unknown behind somebody who isolates.
func (d *door) loud() bool {
	return slices.ContainsFunc(d.isolated, func(f *report.Finding) bool { return f != nil && (f.Verdict.Open() || f.Verdict == report.Unknown) })
}

// untried is why a report says nothing of any door, "" if it does.
func untried(r *report.Report) string {
	for _, f := range r.Findings {
		if f.Verdict != report.Unknown || f.Reason != r.Findings[0].Reason {
			return ""
		}
	}
	if len(r.Findings) < 2 {
		return ""
	}
	return r.Findings[0].Reason
}

// opened is how many subjects that isolate a door is open behind.
func (d *door) opened() (n int) {
	for _, f := range d.isolated {
		if f != nil && f.Verdict.Open() {
			n++
		}
	}
	return n
}

// doors are all of a document. What a door leads to is the worst that it does
// where it is open, or else anywhere.
func doors(d *report.Document) (out []*door) {
	byID := map[string]*door{}
	base := baseline(d)
	for i := range d.Reports {
		tried := untried(&d.Reports[i]) == ""
		for j := range d.Reports[i].Findings {
			f := &d.Reports[i].Findings[j]
			one := byID[f.ID]
			if one == nil {
				one = &door{id: f.ID, name: f.Door, findings: make([]*report.Finding, len(d.Reports)), index: make([]int, len(d.Reports))}
				byID[f.ID] = one
				out = append(out, one)
			}
			if tried || len(d.Reports) == 1 {
				one.findings[i], one.index[i] = f, j
				if &d.Reports[i] != base {
					one.isolated = append(one.isolated, f)
				}
			}
		}
	}
	for _, one := range out {
		one.consequence = one.worst(one.opened() > 0)
	}
	return out
}

func (d *door) worst(ifOpen bool) (worst report.Consequence) {
	for _, f := range d.isolated {
		if f == nil || f.Consequence == "" || ifOpen && !f.Verdict.Open() {
			continue
		}
		if worst == "" || rank(f.Consequence) < rank(worst) {
			worst = f.Consequence
		}
	}
	return worst
}

// rank orders consequences from the worst; one that is not given comes last.
func rank(c report.Consequence) int {
	if i := slices.Index(report.Consequences, c); i >= 0 {
		return i
	}
	return len(report.Consequences)
}

// byConsequence orders doors for a reader: the worst, then those that stand open
// behind the most.
func byConsequence(all []*door) {
	slices.SortStableFunc(all, func(a, b *door) int {
		return cmp.Or(cmp.Compare(rank(a.consequence), rank(b.consequence)), cmp.Compare(b.opened(), a.opened()))
	})
}

func title1(c report.Consequence) string {
	if c == "" {
		return "leads nowhere that was said"
	}
	return string(c)
}

func newDoors(d *report.Document) *matrix {
	all := doors(d)
	if len(all) == 0 {
		return nil
	}
	byConsequence(all)
	m := &matrix{Name: "Doors", Span: 1 + len(d.Reports), Fold: "doors are shut, or do not exist, behind all of them"}
	if baseline(d) != nil {
		m.Fold = "doors are shut, or do not exist, behind all that isolate"
	}
	if len(d.Reports) == 1 {
		m.Seen, m.Span, m.Fold = true, m.Span+2, "doors are shut, or do not exist"
	}
	open, unknown := counts{Name: "open", Class: "open"}, counts{Name: "unknown", Class: "unknown"}
	held, apply := counts{Name: "held", Class: "held"}, counts{Name: "not applicable", Class: "none"}
	for i := range d.Reports {
		r := &d.Reports[i]
		open.Values = append(open.Values, r.Count(report.Leaked)+r.Count(report.Weaker))
		unknown.Values = append(unknown.Values, r.Count(report.Unknown))
		held.Values = append(held.Values, r.Count(report.Held))
		apply.Values = append(apply.Values, r.Count(report.NotApplicable))
	}
	m.Counts = []counts{open, unknown, held, apply}
	for _, one := range all {
		row := matrixRow{ID: one.id, Name: one.name}
		for i, f := range one.findings {
			if f == nil {
				row.Cells = append(row.Cells, matrixCell{Class: "none", Text: markOf(""), Title: cmp.Or(untried(&d.Reports[i]), words(""))})
				continue
			}
			c := matrixCell{Class: class(f), Text: mark(f)}
			if f.Verdict.Open() || f.Verdict == report.Unknown {
				c.Href = findingID(i, one.index[i])
			}
			row.Cells = append(row.Cells, c)
			if m.Seen {
				row.Seen = cmp.Or(f.Observed, f.Reason)
				if f.Verdict.Open() {
					row.Fix = f.Fix
				}
			}
		}
		m.add(one.loud(), title1(one.consequence), row)
	}
	return m
}

// add puts a row at the end of its half, below its group's title.
func (m *matrix) add(differs bool, title string, row matrixRow) {
	half := &m.Alike
	if differs {
		half = &m.Differ
	} else {
		m.AlikeRows++
	}
	if n := len(*half); n == 0 || (*half)[n-1].Title != title {
		*half = append(*half, matrixGroup{Title: title})
	}
	last := &(*half)[len(*half)-1]
	last.Rows = append(last.Rows, row)
}

// works is what a part says of a feature that is there; anything else is how it
// failed.
const works = "works"

// newFeatures has one matrix for each measure that counts things by name.
func newFeatures(groups []*measuredGroup) (out []*matrix) {
	for _, g := range groups {
		for _, m := range g.rows {
			if m.parted() {
				out = append(out, newParts(m))
			}
		}
	}
	return out
}

func newParts(m *measured) *matrix {
	out := &matrix{Name: m.Name, Span: 1 + len(m.cells), Fold: "work behind all that were asked"}
	var names []string
	values := map[string][]string{}
	for i, c := range m.cells {
		if c == nil {
			continue
		}
		for _, p := range c.Parts {
			if values[p.Name] == nil {
				names = append(names, p.Name)
				values[p.Name] = make([]string, len(m.cells))
			}
			values[p.Name][i] = p.Value
		}
	}
	for _, name := range names {
		row, alike := matrixRow{Name: name}, true
		for i, v := range values[name] {
			c := matrixCell{Class: "fails", Text: clip(v, 16), Title: clipped(v, 16)}
			switch {
			case v == works:
				c.Class = "held"
			case v != "":
				alike = false
			default:
				c = matrixCell{Class: "none", Text: "–", Title: "not looked at"}
				if one := m.cells[i]; one != nil && one.Reason != "" {
					c.Title = one.Reason
				}
			}
			row.Cells = append(row.Cells, c)
		}
		out.add(!alike, "", row)
	}
	return out
}

// many is what stands in place of a matrix where there are more subjects than it
// has room for: the doors that are open or unknown, and behind whom.
type many struct {
	Groups   []manyGroup
	Subjects []manySubject // with something open or unknown
	Shut     []manySubject // with nothing
	Quiet    int           // doors that are shut everywhere
}

type manyGroup struct {
	Title string
	Rows  []manyRow
}

type manyRow struct {
	ID, Name      string
	Open, Unknown []manyLink
	Share         string
}

type manyLink struct{ Href, Label string }

// manySubject is one subject with its figures, a line of an overview.
type manySubject struct {
	subject
	Boundary            string
	BySeverity          []int
	Open, Unknown, Held int
}

// severities as an overview has them.
var severities = []report.Severity{report.Critical, report.High, report.Medium, report.Low}

func newMany(d *report.Document, subjects []subject) *many {
	m := &many{}
	for i := range d.Reports {
		s := newManySubject(&d.Reports[i], subjects[i])
		if s.Open+s.Unknown == 0 {
			m.Shut = append(m.Shut, s)
		} else {
			m.Subjects = append(m.Subjects, s)
		}
	}
	slices.SortStableFunc(m.Subjects, func(a, b manySubject) int {
		return cmp.Or(slices.Compare(b.BySeverity, a.BySeverity), cmp.Compare(b.Open, a.Open), cmp.Compare(b.Unknown, a.Unknown))
	})
	all := doors(d)
	byConsequence(all)
	for _, one := range all {
		if !one.loud() {
			m.Quiet++
			continue
		}
		row := manyRow{ID: one.id, Name: one.name, Share: percent(100 * float64(one.opened()) / float64(len(d.Reports)))}
		for i, f := range one.findings {
			switch {
			case f == nil:
			case f.Verdict.Open():
				row.Open = append(row.Open, manyLink{findingID(i, one.index[i]), subjects[i].Label})
			case f.Verdict == report.Unknown:
				row.Unknown = append(row.Unknown, manyLink{findingID(i, one.index[i]), subjects[i].Label})
			}
		}
		t := title1(one.consequence)
		if n := len(m.Groups); n == 0 || m.Groups[n-1].Title != t {
			m.Groups = append(m.Groups, manyGroup{Title: t})
		}
		last := &m.Groups[len(m.Groups)-1]
		last.Rows = append(last.Rows, row)
	}
	return m
}

func newManySubject(r *report.Report, s subject) manySubject {
	out := manySubject{subject: s, Boundary: r.Subject.Boundary, Unknown: r.Count(report.Unknown), Held: r.Count(report.Held), BySeverity: make([]int, len(severities))}
	for _, f := range r.Findings {
		if f.Verdict.Open() {
			out.Open++
			if i := slices.Index(severities, f.Severity); i >= 0 {
				out.BySeverity[i]++
			}
		}
	}
	return out
}

// findingID is the place of a finding: of the report and the finding in it.
func findingID(report, finding int) string { return fmt.Sprintf("#s%df%d", report, finding) }
