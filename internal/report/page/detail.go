package page

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// detail is everything about one subject.
type detail struct {
	subject
	ID       string
	Alone    bool // it is all that the document is about
	Prints   bool // on paper it is unfolded
	Facts    []report.Fact
	Shared   []string
	Findings []finding // that need a reader: open, unknown
	Quiet    []quiet   // the others, by verdict
	Measures []detailMeasure
	Untested []report.Untested
	Summary  string
	Untried  string // why no door at all could be tried
	Recheck  string // how to look again, where that is the same for every door
}

type finding struct {
	*report.Finding
	Place    string // its place
	Class    string
	Word     string
	Evidence []evidence
	Waiver   string
}

type evidence struct{ Call, Ended string }

// quiet are findings with one verdict that nobody has to act upon.
type quiet struct {
	Title string
	Rows  []finding
	// Groups takes the place of Rows where there are too many subjects for them.
	Groups string
}

type detailMeasure struct {
	Name, ID, Median, Interval, P99, Range string
	Samples                                int
	Note                                   string
}

const (
	maxEvidence = 16 // of one finding
	// maxPrinted is up to how many subjects paper has all that is open. Of more it has
	// what the reader has unfolded.
	maxPrinted = 3
	// maxQuiet is up to how many subjects a page lists their shut doors one by one.
	maxQuiet = 24
)

func newDetail(d *report.Document, i int, s subject) detail {
	r := &d.Reports[i]
	out := detail{subject: s, ID: strings.TrimPrefix(s.Href, "#"), Alone: len(d.Reports) == 1, Prints: len(d.Reports) <= maxPrinted, Shared: r.Shared, Untested: r.Untested, Summary: summary(r)}
	for _, f := range []report.Fact{
		{Name: "label", Value: s.Full}, {Name: "boundary", Value: r.Subject.Boundary}, {Name: "engine", Value: r.Subject.Engine}, {Name: "image", Value: r.Subject.Image},
		{Name: "kernel", Value: r.Subject.Kernel}, {Name: "host's kernel", Value: r.Subject.HostKernel}, {Name: "note", Value: r.Subject.Note},
	} {
		if f.Value != "" {
			out.Facts = append(out.Facts, f)
		}
	}
	if c := r.Subject.Command; c != "" {
		out.Facts = append(out.Facts, report.Fact{Name: "command", Value: c})
	}
	out.Untried = untried(r)
	for _, v := range []report.Verdict{report.Weaker, report.Leaked, report.Unknown} {
		if out.Untried != "" {
			break // one sentence says it of all
		}
		out.Findings = append(out.Findings, findings(r, i, v)...)
	}
	out.shareRecheck()
	slices.SortStableFunc(out.Findings, func(a, b finding) int {
		if a.Finding.Verdict.Open() && b.Finding.Verdict.Open() {
			return rank(a.Consequence) - rank(b.Consequence)
		}
		return 0
	})
	for _, v := range []report.Verdict{report.Held, report.NotApplicable} {
		q := quiet{Title: fmt.Sprintf("%d %s", r.Count(v), words(v)), Rows: findings(r, i, v)}
		if len(d.Reports) > maxQuiet {
			q.Groups, q.Rows = inGroups(q.Rows), nil
		}
		if r.Count(v) > 0 {
			out.Quiet = append(out.Quiet, q)
		}
	}
	for j := range r.Measures {
		if m := &r.Measures[j]; m.Measured() {
			out.Measures = append(out.Measures, newDetailMeasure(m))
		}
	}
	return out
}

// shareRecheck says once what all findings say.
func (d *detail) shareRecheck() {
	if len(d.Findings) == 0 {
		return
	}
	same := d.Findings[0].Recheck
	for i := range d.Findings {
		if d.Findings[i].Recheck != same {
			return
		}
	}
	d.Recheck = same
}

// summary is a subject in a few words.
func summary(r *report.Report) string {
	if len(r.Findings) == 0 {
		return ""
	}
	if untried(r) != "" {
		return "not tried"
	}
	open := r.Opened()
	s := fmt.Sprintf("%d open, %d held", open, r.Count(report.Held))
	if n := r.Count(report.Unknown); n > 0 {
		s = fmt.Sprintf("%d open, %d unknown, %d held", open, n, r.Count(report.Held))
	}
	return s
}

func findings(r *report.Report, i int, v report.Verdict) (out []finding) {
	for j := range r.Findings {
		f := &r.Findings[j]
		if f.Verdict != v {
			continue
		}
		one := finding{Finding: f, Place: strings.TrimPrefix(findingID(i, j), "#"), Class: class(f), Word: words(v)}
		if w := f.Waived; w != nil {
			one.Waiver = fmt.Sprintf("until %s by %s: %s", w.Until, w.Owner, w.Reason)
		}
		for n, e := range f.Evidence {
			if n == maxEvidence {
				one.Evidence = append(one.Evidence, evidence{Call: fmt.Sprintf("and %d more", len(f.Evidence)-n)})
				break
			}
			one.Evidence = append(one.Evidence, evidence{e.Call, ended(e)})
		}
		out = append(out, one)
	}
	return out
}

// ended is how a call ended.
func ended(e report.Evidence) string {
	if e.Errno == "" && e.Value == "" {
		return "succeeds"
	}
	return strings.TrimSpace(e.Errno + " " + e.Value)
}

// inGroups counts findings by group: "files 4, limits 2".
func inGroups(all []finding) string {
	var names []string
	count := map[string]int{}
	for _, f := range all {
		if count[f.Group()] == 0 {
			names = append(names, f.Group())
		}
		count[f.Group()]++
	}
	for i, n := range names {
		names[i] = fmt.Sprintf("%s %d", n, count[n])
	}
	return strings.Join(names, ", ")
}

func newDetailMeasure(m *report.Measure) detailMeasure {
	out := detailMeasure{Name: m.Name, ID: m.ID, Median: value(m), Samples: len(m.Samples), Note: m.Note}
	if low, high, ok := m.Interval(); ok {
		out.Interval = span(low, high, m.Unit)
	}
	if p99, ok := m.P99(); ok {
		out.P99 = number(p99, m.Unit)
	}
	if len(m.Samples) > 1 {
		out.Range = span(m.Quantile(0), m.Quantile(1), m.Unit)
	}
	return out
}
