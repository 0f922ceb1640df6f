package page

import (
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// drawing is how the measures of a group are drawn.
type drawing struct {
	// shared: its plots have one scale, as their values are of one kind.
	shared bool
	// stacked: its measures add up.
	stacked bool
}

// drawings are those that differ from a plot with a scale of its own for each
// measure, by group.
var drawings = map[string]drawing{"start": {shared: true}, "memory": {stacked: true}}

// measured is one measure over all subjects.
type measured struct {
	ID, Name string
	unit     report.Unit
	better   report.Better
	// cells has one for each report, nil where it does not have the measure.
	cells []*report.Measure
	best  []int
}

// measuredGroup is the measures of the groups with one title.
type measuredGroup struct {
	drawing
	title string
	rows  []*measured
}

// maxCompared is up to how many subjects the best is looked for: it takes a
// comparison of each with each.
const maxCompared = 64

// measures are all of a document's, in the order and under the titles that the
// terminal has, too.
func measures(d *report.Document) (out []*measuredGroup) {
	for _, id := range d.MeasureIDs() {
		row := newMeasured(d, id)
		if len(d.Reports) <= maxCompared {
			row.best = d.Best(id)
		}
		group, _, _ := strings.Cut(id, ".")
		title := report.GroupTitle(group)
		if len(out) == 0 || out[len(out)-1].title != title {
			out = append(out, &measuredGroup{drawing: drawings[group], title: title})
		}
		last := out[len(out)-1]
		last.rows = append(last.rows, row)
	}
	for _, g := range out {
		g.title = capital(g.title)
	}
	return out
}

func newMeasured(d *report.Document, id string) *measured {
	row := &measured{ID: id, cells: make([]*report.Measure, len(d.Reports))}
	for i := range d.Reports {
		m := d.Reports[i].Measure(id)
		if row.cells[i] = m; m == nil {
			continue
		}
		if row.Name == "" {
			row.Name = m.Name
		}
		if row.unit == "" && m.Measured() {
			row.unit = m.Unit
		}
		if row.better == "" && m.Measured() { // a cell may take no part in it
			row.better = m.Better
		}
	}
	return row
}

// withoutBaseline is d without the subject that nothing isolates, which would be the
// best of nearly everything.
func withoutBaseline(d *report.Document) *report.Document {
	base := baseline(d)
	others := *d
	others.Reports = nil
	for i := range d.Reports {
		if &d.Reports[i] != base {
			others.Reports = append(others.Reports, d.Reports[i])
		}
	}
	return &others
}

// drawn are the indexes of the cells that a plot can show: numbers of one unit.
func (m *measured) drawn() (out []int) {
	for i, c := range m.cells {
		if c != nil && c.Measured() && c.Unit == m.unit {
			out = append(out, i)
		}
	}
	return out
}

// parted reports whether a measure counts what works, and its parts say of each
// thing whether it does.
func (m *measured) parted() bool {
	if m.unit != report.Number {
		return false
	}
	return slices.ContainsFunc(m.cells, func(c *report.Measure) bool {
		return c != nil && slices.ContainsFunc(c.Parts, func(p report.Fact) bool { return p.Value == works })
	})
}
