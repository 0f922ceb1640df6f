package page

import (
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// group is how the measures of one group are titled and drawn. A group that is not
// here comes after these, under its own name.
type group struct {
	id, title string
	// shared: its plots have one scale, as their values are of one kind.
	shared bool
	// stacked: its measures add up.
	stacked bool
}

var groups = []group{
	{id: "kernel", title: "Kernel"},
	{id: "system", title: "Operating system"},
	{id: "isolation", title: "Isolation"},
	{id: "start", title: "Start", shared: true},
	{id: "image", title: "Image"},
	{id: "memory", title: "Memory", stacked: true},
	{id: "density", title: "Density"},
	{id: "calls", title: "System calls"},
	{id: "files", title: "Files"},
	{id: "network", title: "Network"},
	{id: "work", title: "Processor-bound work"},
	{id: "compat", title: "Kernel features"},
}

// measured is one measure over all subjects.
type measured struct {
	ID, Name string
	unit     report.Unit
	better   report.Better
	// cells has one for each report, nil where it does not have the measure.
	cells []*report.Measure
	best  []int
}

// measuredGroup is the measures of one group.
type measuredGroup struct {
	group
	rows []*measured
}

// measures are all of a document's, by group, in the order in which they are found.
func measures(d *report.Document) (out []*measuredGroup) {
	byID := map[string]*measured{}
	byGroup := map[string]*measuredGroup{}
	for _, g := range groups {
		byGroup[g.id] = &measuredGroup{group: g}
		out = append(out, byGroup[g.id])
	}
	for i := range d.Reports {
		for j := range d.Reports[i].Measures {
			m := &d.Reports[i].Measures[j]
			row := byID[m.ID]
			if row == nil {
				row = &measured{ID: m.ID, Name: m.Name, cells: make([]*report.Measure, len(d.Reports))}
				byID[m.ID] = row
				g := byGroup[m.Group()]
				if g == nil {
					g = &measuredGroup{group: group{id: m.Group(), title: strings.ToUpper(m.Group()[:1]) + m.Group()[1:]}}
					byGroup[g.id] = g
					out = append(out, g)
				}
				g.rows = append(g.rows, row)
			}
			if row.unit == "" && m.Measured() {
				row.unit, row.better = m.Unit, m.Better
			}
			row.cells[i] = m
		}
	}
	apart, index := withoutBaseline(d)
	for _, row := range byID {
		for _, i := range apart.Best(row.ID) {
			row.best = append(row.best, index[i])
		}
		drawn := slices.DeleteFunc(row.drawn(), func(i int) bool { return !slices.Contains(index, i) })
		if 2*len(row.best) > len(drawn) {
			row.best = nil // a mark that most have points at nothing
		}
	}
	return slices.DeleteFunc(out, func(g *measuredGroup) bool { return len(g.rows) == 0 })
}

// withoutBaseline is d without the subject that nothing isolates, which would be the
// best of nearly everything, and where in d the others are.
func withoutBaseline(d *report.Document) (*report.Document, []int) {
	base := baseline(d)
	others, index := *d, []int{}
	others.Reports = nil
	for i := range d.Reports {
		if &d.Reports[i] != base {
			others.Reports = append(others.Reports, d.Reports[i])
			index = append(index, i)
		}
	}
	return &others, index
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

// parted reports whether a measure counts things that its parts name one by one.
func (m *measured) parted() bool {
	return m.unit == report.Number && slices.ContainsFunc(m.cells, func(c *report.Measure) bool { return c != nil && len(c.Parts) > 0 })
}
