package page

import (
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// view is what the template shows. Its words are ready to be printed.
type view struct {
	Policy string
	CSS    template.CSS
	JS     template.JS

	Kind, Title, Tool string
	Time, Stamp       string // for people, for programs
	Lead              []sentence
	Contents          []heading
	Machine           []report.Fact
	Brief             []string // the first of Machine
	Subjects          []subject
	Table             *table
	Figures           []figures
	Doors             *matrix
	Features          []*matrix
	Many              *many
	Changes           []change
	Notes             []string
	Inside            bool   // a door is open that leads no further than to the workload's own kernel
	Weaker, Unknown   bool   // there are such doors
	Threshold         string // the severity from which on findings count
	Details           []detail
}

// heading is a place of the page.
type heading struct{ ID, Title string }

// subject is a report as the head of a column, or the name of a row.
type subject struct {
	Href     string
	Label    string // short
	Full     string // the whole label where Label is not
	Emulated bool
	Note     string
}

// change is one of the document's, in words.
type change struct {
	report.Change
	Class, Before, Now string
}

const (
	maxLabel = 28 // characters of a column's head
	maxCell  = 90 // of a text in a cell
	// maxColumns is how many subjects a table of doors has room for.
	maxColumns = 16
)

var kinds = map[string]string{report.Probe: "Probe", report.Audit: "Audit", report.Compare: "Comparison"}

func newView(whole *report.Document) *view {
	whole, d := absentLast(whole)
	v := &view{
		Policy: policy(), CSS: template.CSS(pageCSS), JS: template.JS(pageJS),
		Kind: kinds[d.Kind], Title: title(d), Tool: d.Tool,
		Time: d.Time.UTC().Format("2 January 2006, 15:04 UTC"), Stamp: d.Time.UTC().Format("2006-01-02T15:04:05Z"),
		Lead: lead(whole), Machine: d.Machine,
	}
	for _, f := range d.Machine[:min(3, len(d.Machine))] {
		v.Brief = append(v.Brief, clip(f.Value, maxCell))
	}
	for i := range d.Reports {
		v.Subjects = append(v.Subjects, newSubject(i, &d.Reports[i].Subject))
	}
	rows := measures(d)
	v.Table = newTable(d, rows)
	v.Figures = newFigures(rows, v.Subjects)
	if len(d.Reports) > maxColumns {
		v.Many = newMany(d, v.Subjects)
	} else {
		v.Doors = newDoors(d)
	}
	v.Features = newFeatures(rows)
	for _, c := range d.Changes {
		v.Changes = append(v.Changes, change{c, classOf(c.New), words(c.Old), words(c.New)})
	}
	v.Notes, v.Threshold = d.Notes, string(d.Threshold)
	for i := range d.Reports {
		v.Inside = v.Inside || d.Reports[i].Inside() > 0
		v.Weaker = v.Weaker || d.Reports[i].Count(report.Weaker) > 0
		v.Unknown = v.Unknown || d.Reports[i].Count(report.Unknown) > 0
	}
	for i := range whole.Reports {
		v.Details = append(v.Details, newDetail(whole, i, newSubject(i, &whole.Reports[i].Subject)))
	}
	v.Contents = v.contents()
	return v
}

func (v *view) contents() (out []heading) {
	tableTitle := ""
	if v.Table != nil {
		tableTitle = v.Table.Title
	}
	for _, c := range []struct {
		there bool
		heading
	}{
		{v.Table != nil, heading{"side-by-side", tableTitle}},
		{len(v.Figures) > 0, heading{"costs", "What it costs"}},
		{v.Doors != nil || v.Many != nil, heading{"doors", "Security boundary"}},
		{len(v.Features) > 0, heading{"features", "Kernel features"}},
		{len(v.Changes) > 0, heading{"changes", "Changes"}},
		{len(v.Details) > 0, heading{"details", "In detail"}},
	} {
		if c.there {
			out = append(out, c.heading)
		}
	}
	return out
}

// absentLast is d with the subjects last of which nothing was found out, for one
// reason that the lead gives, and d without them: a column of theirs would repeat it
// in every group. If there are no others, nothing is left out.
func absentLast(d *report.Document) (whole, present *report.Document) {
	there, not := *d, []report.Report(nil)
	there.Reports = nil
	for i := range d.Reports {
		if r := d.Reports[i]; absent(&r) == "" {
			there.Reports = append(there.Reports, r)
		} else {
			not = append(not, r)
		}
	}
	if len(there.Reports) == 0 {
		return d, d
	}
	all := there
	all.Reports = slices.Concat(there.Reports, not)
	return &all, &there
}

// absent is the one reason for which nothing was measured of r, "" if there is none
// or something was found out.
func absent(r *report.Report) (reason string) {
	for i := range r.Measures {
		m := &r.Measures[i]
		if m.Reason == "" || reason != "" && m.Reason != reason {
			return ""
		}
		reason = m.Reason
	}
	if r.Count(report.Unknown) < len(r.Findings) {
		return ""
	}
	return reason
}

func newSubject(i int, s *report.Subject) subject {
	label := s.Label
	if label == "" {
		label = "the workload"
	}
	return subject{
		Href: fmt.Sprintf("#s%d", i), Label: clip(label, maxLabel), Full: clipped(label, maxLabel), Note: s.Note,
		// What probes and comparisons say of a machine without hardware virtualization.
		Emulated: strings.Contains(s.Note, "emulated"),
	}
}

// baseline is the report of no boundary, nil where there is none: what others are
// compared with.
func baseline(d *report.Document) *report.Report {
	if d.Kind != report.Compare || len(d.Reports) < 2 {
		return nil
	}
	i := slices.IndexFunc(d.Reports, func(r report.Report) bool { return r.Subject.Label == "none" })
	if i < 0 {
		return nil
	}
	return &d.Reports[i]
}

// class names what a finding says in the style sheet.
func class(f *report.Finding) string {
	if f.Verdict.Open() && f.Consequence.Inside() {
		return "inside"
	}
	return classOf(f.Verdict)
}

func classOf(v report.Verdict) string {
	switch v {
	case report.Held:
		return "held"
	case report.Leaked:
		return "open"
	case report.Weaker:
		return "weaker"
	case report.Unknown:
		return "unknown"
	}
	return "none"
}

// words are a verdict in a sentence.
func words(v report.Verdict) string {
	if v == "" {
		return "not looked at"
	}
	return string(v)
}

// mark is a finding in a cell of a matrix, as the terminal's matrix has it.
func mark(f *report.Finding) string {
	m := markOf(f.Verdict)
	if f.Verdict.Open() && f.Consequence.Inside() {
		m = "inside"
	}
	if f.Waived != nil {
		m += ", waived"
	}
	return m
}

func markOf(v report.Verdict) string {
	switch v {
	case report.Weaker:
		return "weaker"
	case report.NotApplicable:
		return "n/a"
	case "":
		return "–"
	}
	return string(v)
}
