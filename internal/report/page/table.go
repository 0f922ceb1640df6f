package page

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// table is measures × subjects.
type table struct {
	Title    string
	Single   bool // there is one subject
	Groups   []tableGroup
	Baseline bool // there is one, so that ratios mean something
	Best     bool // something is marked as best
	Emulated bool
	Guessed  bool // something is estimated
}

type tableGroup struct {
	Title string
	Rows  []tableRow
}

type tableRow struct {
	Name, ID string
	About    string // what holds for every cell
	AboutAll string // the whole of it where About is not
	Cells    []cell
}

// cell is a value, or the reason why there is none.
type cell struct {
	Value, Title string
	Text         bool // Value is words, not a number
	Small        []string
	Parts        []report.Fact
	Best         bool
	Reason       string
	Rows         int  // that a reason is for: the same one down a group
	Skip         bool // covered by the cell above
	Absent       bool // nobody looked
}

func newTable(d *report.Document, groups []*measuredGroup) *table {
	if len(groups) == 0 {
		return nil
	}
	base := baseline(d)
	t := &table{Title: "Side by side", Baseline: base != nil}
	if len(d.Reports) == 1 {
		t.Title, t.Single = "Measures", true
	}
	for i := range d.Reports {
		t.Emulated = t.Emulated || newSubject(i, &d.Reports[i].Subject).Emulated
	}
	for _, g := range groups {
		out := tableGroup{Title: g.title}
		for _, m := range g.rows {
			out.Rows = append(out.Rows, newTableRow(m, base))
			t.Best = t.Best || len(m.best) > 0
			t.Guessed = t.Guessed || slices.ContainsFunc(m.cells, func(c *report.Measure) bool { return c != nil && c.Estimated })
		}
		joinReasons(out.Rows)
		t.Groups = append(t.Groups, out)
	}
	return t
}

func newTableRow(m *measured, base *report.Report) tableRow {
	row, about := tableRow{Name: m.Name, ID: m.ID}, ""
	if m.better != "" && m.unit != "" {
		about = string(m.better) + " is better"
	}
	var with *report.Measure
	if base != nil {
		with = base.Measure(m.ID)
	}
	note, shared := m.note()
	if shared && note != "" {
		about = strings.TrimPrefix(about+" · "+note, " · ")
	}
	row.About = about
	if len(m.cells) > 1 { // the column is narrow
		row.About, row.AboutAll = clip(about, maxAbout), clipped(about, maxAbout)
	}
	for i, c := range m.cells {
		out := newCell(c, with, m.parted())
		out.Best = slices.Contains(m.best, i)
		if c != nil && !shared && c.Note != "" {
			out.Small = append(out.Small, clip(c.Note, maxCell))
		}
		row.Cells = append(row.Cells, out)
	}
	return row
}

// note is the one that all values have, if that is so.
func (m *measured) note() (note string, shared bool) {
	first := true
	for _, c := range m.cells {
		if c == nil || c.Reason != "" {
			continue
		}
		if !first && c.Note != note {
			return "", false
		}
		note, first = c.Note, false
	}
	return note, true
}

// maxAbout is how many characters of what holds for every cell a table shows; the
// details have all.
const maxAbout = 56

// newCell is without the parts of a measure that has a matrix of its own.
func newCell(m, base *report.Measure, parted bool) cell {
	switch {
	case m == nil:
		return cell{Absent: true, Rows: 1}
	case m.Reason != "":
		return cell{Reason: clip(m.Reason, maxCell), Title: clipped(m.Reason, maxCell), Rows: 1}
	case !m.Measured():
		return cell{Value: clip(m.Text, maxCell), Title: clipped(m.Text, maxCell), Text: true, Parts: m.Parts, Rows: 1}
	}
	c := cell{Value: value(m), Title: spread(m), Rows: 1}
	if !parted {
		c.Parts = m.Parts
	}
	if r := ratio(m, base); r != "" {
		c.Small = append(c.Small, r)
	}
	if p99, ok := m.P99(); ok {
		c.Small = append(c.Small, "p99 "+number(p99, m.Unit))
	}
	return c
}

// spread says what noise there was.
func spread(m *report.Measure) string {
	low, high, ok := m.Interval()
	switch n := len(m.Samples); {
	case n == 1:
		return "one sample"
	case ok:
		return fmt.Sprintf("median of %d samples, 95 %% interval %s", n, span(low, high, m.Unit))
	default:
		return fmt.Sprintf("median of %d samples, all within %s", n, span(low, high, m.Unit))
	}
}

// joinReasons makes one cell of a reason that a column gives several times in a row.
func joinReasons(rows []tableRow) {
	for col := range rows[0].Cells {
		for top, i := 0, 1; i < len(rows); i++ {
			above, c := &rows[top].Cells[col], &rows[i].Cells[col]
			if c.Reason != "" && c.Reason == above.Reason {
				above.Rows++
				c.Skip = true
			} else {
				top = i
			}
		}
	}
}
