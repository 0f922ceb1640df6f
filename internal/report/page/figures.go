package page

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// figures are the plots of one group.
type figures struct {
	Title   string
	Class   string // how much room the group takes
	Plots   []plot
	Missing []string // who is not drawn, and why
}

// plot is one measure of several subjects, a row for each, or several that add up.
type plot struct {
	Name, About string
	Rows        []plotRow
	Ticks       []tick
	ID          string
	Grid        string // a path: the ticks' lines, through every row
	missing     []string
	scale       scale
	unit        report.Unit
	Legend      []string // of a stack's parts
}

type plotRow struct {
	Who   subject
	Value string
	Best  bool
	Says  string // what the drawing shows, in words
	// A row is drawn 1000 wide and rowHeight high, and stretched to the width that
	// there is; strokes and their round ends are not. Bar is as wide as the median,
	// where the scale begins at zero.
	Bar        string
	Guess      bool
	Middle     string // a path
	Low, Width string
	Known      bool   // Low and Width are an interval, not all that was seen
	Dots       string // a path
	Parts      []part
}

const rowHeight = 22

// place is a percentage of the width, in a row's units.
func place(percent float64) string { return strconv.Itoa(int(math.Round(percent * 10))) }

// part is a piece of a stack.
type part struct {
	Class, X, Width, Says string
}

// maxDots are drawn of one subject's samples.
const maxDots = 60

// stackColours are in the style sheet, p0 to p5.
const stackColours = 6

func newFigures(groups []*measuredGroup, subjects []subject) (out []figures) {
	for _, g := range groups {
		f := figures{Title: g.title}
		if g.stacked {
			if p, ok := newStack(g, subjects); ok {
				f.Plots = append(f.Plots, p)
			}
		} else {
			shared := sharedScale(g)
			for _, m := range g.rows {
				if interesting(m) {
					f.Plots = append(f.Plots, newPlot(m, subjects, shared))
				}
			}
		}
		if len(f.Plots) > 0 {
			f.arrange(len(out))
			out = append(out, f)
		}
	}
	return out
}

// arrange gives a group its room, and says once what is missing from all its plots.
func (f *figures) arrange(number int) {
	switch n := len(f.Plots); {
	case n == 1:
		f.Class = "one"
	case n == 2 || n == 4:
		f.Class = "even"
	}
	character := 4.0
	if f.Class != "" {
		character = 2
	}
	for i := range f.Plots {
		p := &f.Plots[i]
		p.ID = fmt.Sprintf("g%d-%d", number, i)
		p.Ticks = p.scale.labels(p.unit, character)
		for _, v := range p.scale.ticks {
			p.Grid += fmt.Sprintf("M%s 0v%d", place(p.scale.at(v)), rowHeight)
		}
	}
	everywhere := map[string]int{}
	for _, p := range f.Plots {
		for _, m := range p.missing {
			if everywhere[m]++; everywhere[m] == len(f.Plots) {
				f.Missing = append(f.Missing, m)
			}
		}
	}
	for _, p := range f.Plots {
		for _, m := range p.missing {
			if everywhere[m] < len(f.Plots) {
				f.Missing = append(f.Missing, p.Name+", "+m)
			}
		}
	}
}

// interesting reports whether a plot shows more than the table does: values that
// are not the same for everybody.
func interesting(m *measured) bool {
	drawn := m.drawn()
	if len(drawn) < 2 || m.parted() {
		return false
	}
	first := m.cells[drawn[0]]
	return slices.ContainsFunc(drawn, func(i int) bool { return m.cells[i].Median() != first.Median() })
}

// sharedScale is the one of all measures of a group with the same unit, nil where
// each has its own.
func sharedScale(g *measuredGroup) *scale {
	if !g.shared {
		return nil
	}
	least, greatest := math.Inf(1), 0.0
	for _, m := range g.rows {
		if !interesting(m) {
			continue
		}
		if m.unit != g.rows[0].unit {
			return nil
		}
		l, h := m.extent()
		least, greatest = min(least, l), max(greatest, h)
	}
	s := newScale(least, greatest, g.rows[0].unit)
	return &s
}

// extent is the least and the greatest sample that is drawn.
func (m *measured) extent() (least, greatest float64) {
	least = math.Inf(1)
	for _, i := range m.drawn() {
		least, greatest = min(least, m.cells[i].Quantile(0)), max(greatest, m.cells[i].Quantile(1))
	}
	return least, greatest
}

func newPlot(m *measured, subjects []subject, shared *scale) plot {
	least, greatest := m.extent()
	s := newScale(least, greatest, m.unit)
	if shared != nil {
		s = *shared
	}
	p := plot{Name: m.Name, About: about(m.better, s.log), scale: s, unit: m.unit, missing: missing(m.cells, subjects)}
	for _, i := range m.drawn() {
		c := m.cells[i]
		row := plotRow{Who: subjects[i], Value: value(c), Best: slices.Contains(m.best, i), Guess: c.Estimated, Says: value(c) + ", " + spread(c)}
		if !s.log {
			row.Bar = place(s.at(c.Median()) - s.at(0))
		}
		row.Middle = fmt.Sprintf("M%s 2v%d", place(s.at(c.Median())), rowHeight-4)
		if len(c.Samples) > 1 {
			low, high, ok := c.Interval()
			row.Low, row.Width, row.Known = place(s.at(low)), place(max(s.at(high)-s.at(low), 0.2)), ok
			row.Dots = dots(c, s)
		}
		p.Rows = append(p.Rows, row)
	}
	return p
}

func about(b report.Better, log bool) string {
	var words []string
	if b != "" {
		words = append(words, string(b)+" is better")
	}
	if log {
		words = append(words, "log scale")
	}
	return strings.Join(words, ", ")
}

// dots are the samples, spread over the height of a row so that none hides another.
// Of very many it shows as many as there is room for, evenly chosen by their rank.
func dots(m *report.Measure, s scale) string {
	samples := m.Samples
	if len(samples) > maxDots {
		sorted := slices.Sorted(slices.Values(samples))
		samples = nil
		for i := range maxDots {
			samples = append(samples, sorted[i*(len(sorted)-1)/(maxDots-1)])
		}
	}
	var path strings.Builder
	for i, v := range samples {
		_, f := math.Modf(float64(i) * math.Phi)
		fmt.Fprintf(&path, "M%s %dh0", place(s.at(v)), 5+int(12*f)) // its round ends are the dot
	}
	return path.String()
}

// missing says who is not drawn, and why, one line for each reason.
func missing(cells []*report.Measure, subjects []subject) (out []string) {
	var reasons []string
	who := map[string][]string{}
	for i, c := range cells {
		if c == nil || c.Reason == "" {
			continue
		}
		if who[c.Reason] == nil {
			reasons = append(reasons, c.Reason)
		}
		who[c.Reason] = append(who[c.Reason], subjects[i].Label)
	}
	for _, r := range reasons {
		out = append(out, clip(strings.Join(who[r], ", "), maxCell)+": "+clip(r, maxCell))
	}
	return out
}

// newStack draws the measures of a group that are numbers of its first one's unit on top of
// each other.
func newStack(g *measuredGroup, subjects []subject) (p plot, ok bool) {
	var rows []*measured
	for _, m := range g.rows {
		if m.unit != "" && (len(rows) == 0 || m.unit == rows[0].unit) {
			rows = append(rows, m)
		}
	}
	if len(rows) == 0 {
		return p, false
	}
	totals := make([]float64, len(subjects))
	seen := make([]bool, len(subjects))
	least, greatest := math.Inf(1), 0.0
	for _, m := range rows {
		for _, i := range m.drawn() {
			totals[i] += m.cells[i].Median()
			seen[i] = true
		}
	}
	drawn := 0
	for i, t := range totals {
		if seen[i] {
			drawn++
			least, greatest = min(least, t), max(greatest, t)
		}
	}
	if drawn < 2 || greatest == 0 {
		return p, false
	}
	s := newScale(0, greatest, rows[0].unit)
	p = plot{Name: "added up", About: "medians, " + about(rows[0].better, s.log), scale: s, unit: rows[0].unit, missing: missing(rows[0].cells, subjects)}
	if least == greatest {
		return p, false
	}
	for _, m := range rows {
		p.Legend = append(p.Legend, m.Name)
	}
	for i := range subjects {
		if seen[i] {
			p.Rows = append(p.Rows, stackRow(rows, i, subjects[i], s, totals[i]))
		}
	}
	return p, true
}

func stackRow(rows []*measured, i int, who subject, s scale, total float64) plotRow {
	row := plotRow{Who: who, Value: number(total, rows[0].unit)}
	var says []string
	below := 0.0
	for n, m := range rows {
		c := m.cells[i]
		if c == nil || !c.Measured() || c.Unit != m.unit {
			continue
		}
		v := c.Median()
		pt := part{Class: fmt.Sprintf("p%d", n%stackColours), X: place(s.at(below)), Width: place(s.at(below+v) - s.at(below)), Says: m.Name + ": " + value(c)}
		says = append(says, pt.Says)
		row.Guess = row.Guess || c.Estimated
		below += v
		if v > 0 {
			row.Parts = append(row.Parts, pt)
		}
	}
	row.Says = strings.Join(says, ", ")
	return row
}
