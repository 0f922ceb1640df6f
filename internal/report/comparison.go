package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Format writes a number of the unit as a person reads it: three digits, with a
// decimal prefix: "41.2 ms", "4.40 MB", "1.31 GB/s", "38", "×1.04".
func (u Unit) Format(v float64) string {
	scale := func(suffix string, names ...string) string {
		i := 0
		for v >= 999.5 && i < len(names)-1 {
			v, i = v/1000, i+1
		}
		return digits(v) + " " + names[i] + suffix
	}
	switch u {
	case Seconds:
		if v >= 0.9995 {
			return digits(v) + " s"
		}
		v *= 1e9
		return scale("", "ns", "µs", "ms")
	case Bytes:
		return scale("", "B", "kB", "MB", "GB", "TB")
	case BytesPerSecond:
		return scale("/s", "B", "kB", "MB", "GB", "TB")
	case PerSecond:
		return strings.Replace(scale("/s", "", "k", "M"), " /s", "/s", 1)
	case Ratio:
		return "×" + digits(v)
	default:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
}

// digits writes a number with three digits, without a fraction from 100 on.
func digits(v float64) string {
	if v == 0 {
		return "0"
	}
	// Rounded first: 9.996 has no place for a fourth digit.
	most := math.Pow(10, 2-math.Floor(math.Log10(v)))
	v = math.Round(v*most) / most
	return strconv.FormatFloat(v, 'f', max(0, 2-int(math.Floor(math.Log10(v)+1e-9))), 64)
}

// Value is what a table shows of a measure: the median, a text, or "–". An
// estimate is marked.
func (m *Measure) Value() string {
	switch {
	case m.Measured() && m.Estimated:
		return "≈ " + m.Unit.Format(m.Median())
	case m.Measured():
		return m.Unit.Format(m.Median())
	case m.Text != "":
		return m.Text
	default:
		return "–"
	}
}

// groupTitles name groups of measures, in the order in which tables show them;
// others follow under their own names.
var groupTitles = []struct{ group, title string }{
	{"kernel", "What it is"}, {"system", "What it is"}, {"isolation", "What isolates it"}, {"start", "Start"}, {"image", "Image"}, {"memory", "Memory of one idle workload"}, {"guest", "Memory, by the guest's own account"},
	{"density", "Density"}, {"calls", "System calls, from inside"}, {"files", "Files"}, {"network", "Network"},
	{"work", "Processor-bound work"}, {"compat", "Kernel features"}, {"surface", "Attack surface"},
	{"neighbours", "A victim alone"},
	{"limited-p50", "Beside a neighbour with limits: p50 of the victim's requests, in that of the victim alone"},
	{"limited-p99", "Beside a neighbour with limits: p99"},
	{"limited-rate", "Beside a neighbour with limits: throughput"},
	{"unlimited-p50", "Beside a neighbour without limits: p50"},
	{"unlimited-p99", "Beside a neighbour without limits: p99"},
	{"unlimited-rate", "Beside a neighbour without limits: throughput"},
}

// GroupTitle is the title of a group of measures. Groups with the same title
// belong together.
func GroupTitle(group string) string {
	for _, t := range groupTitles {
		if t.group == group {
			return t.title
		}
	}
	return group
}

// MeasureIDs are those of all measures of the document, those of a group together,
// in the order of GroupTitle.
func (d *Document) MeasureIDs() (ids []string) {
	seen := map[string]bool{}
	for i := range d.Reports {
		for j := range d.Reports[i].Measures {
			if id := d.Reports[i].Measures[j].ID; !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	rank := func(id string) int {
		for i, t := range groupTitles {
			if t.group == group(id) {
				return i
			}
		}
		return len(groupTitles)
	}
	slices.SortStableFunc(ids, func(a, b string) int { return rank(a) - rank(b) })
	return ids
}

// tableWidth is how many characters a table of a comparison has at most, if its
// columns allow it.
const tableWidth = 110

// NeighbourLimits is the name of the fact that says what limits neighbours, where what
// they do to each other was measured: the figures mean little without it.
const NeighbourLimits = "limits of neighbours"

// Comparison writes the tables of a comparison: one for each group of measures,
// with a line for each subject. Verbose adds spreads, notes, parts and the machine.
func (d *Document) Comparison(w io.Writer, verbose bool) error {
	p := &printer{w: w}
	for _, f := range d.Machine {
		if verbose || f.Name == "kernel" || f.Name == "processors" || f.Name == "command" || f.Name == NeighbourLimits {
			p.line("%-22s %s", f.Name, f.Value)
		}
	}
	ids := d.MeasureIDs()
	for len(ids) > 0 {
		title := GroupTitle(group(ids[0]))
		n := slices.IndexFunc(ids, func(id string) bool { return GroupTitle(group(id)) != title })
		if n < 0 {
			n = len(ids)
		}
		d.table(p, title, ids[:n], verbose)
		ids = ids[n:]
	}
	d.doors(p)
	d.notes(p, verbose)
	p.line("\nMedians. * marks the best, together with those that noise cannot tell from it; ≈ an estimate.")
	if verbose {
		p.line("In brackets: the p99 of times, or the max of fewer than %d samples, which have no p99; the least and the greatest; how many there are.", enoughForP99)
	}
	return p.err
}

// table writes one group, in as many pieces as its width needs.
func (d *Document) table(p *printer, title string, ids []string, verbose bool) {
	first := 0
	for i := range d.Reports {
		first = max(first, utf8.RuneCountInString(d.Reports[i].Subject.Label))
	}
	for len(ids) > 0 {
		var columns [][]string
		var numbers []bool
		width := first + 2
		for _, id := range ids {
			c := d.column(id, verbose)
			w := 2 + widest(c)
			if len(columns) > 0 && width+w > tableWidth {
				break
			}
			width += w
			columns = append(columns, c)
			numbers = append(numbers, d.numeric(id))
		}
		ids = ids[len(columns):]
		p.line("\n%s", title)
		for row := range columns[0] {
			label := ""
			if row > 0 {
				label = d.Reports[row-1].Subject.Label
			}
			line := "  " + align(label, first, false)
			for i, c := range columns {
				line += "  " + align(c[row], widest(c), numbers[i])
			}
			p.line("%s", strings.TrimRight(line, " "))
		}
	}
}

// column is what a table shows of one measure: its name, and a cell for each subject.
func (d *Document) column(id string, verbose bool) []string {
	best := d.Best(id)
	c := []string{id}
	for i := range d.Reports {
		m := d.Reports[i].Measure(id)
		if m == nil {
			m = &Measure{}
		} else {
			c[0] = m.Name
		}
		cell := m.Value()
		switch {
		case slices.Contains(best, i):
			cell += " *"
		case d.numeric(id):
			cell += "  "
		}
		if verbose && len(m.Samples) > 1 {
			cell += " (" + m.spread() + ")"
		}
		c = append(c, cell)
	}
	return c
}

// spread is what lies around the median: of times the slow end, and of everything
// the least, the greatest and how many samples there are.
func (m *Measure) spread() string {
	least, greatest := m.Unit.Format(m.Quantile(0)), m.Unit.Format(m.Quantile(1))
	p99, ok := m.P99()
	switch {
	case ok:
		return fmt.Sprintf("p50; p99 %s; %s to %s, %d", m.Unit.Format(p99), least, greatest, len(m.Samples))
	case m.Unit == Seconds:
		return fmt.Sprintf("p50; max %s; from %s, %d", greatest, least, len(m.Samples))
	default:
		return fmt.Sprintf("%s to %s, %d", least, greatest, len(m.Samples))
	}
}

// doors writes how many doors stand open behind each boundary.
func (d *Document) doors(p *printer) {
	if !slices.ContainsFunc(d.Reports, func(r Report) bool { return len(r.Findings) > 0 }) {
		return
	}
	p.line("\nSecurity boundary, as the prober found it")
	for i := range d.Reports {
		if r := &d.Reports[i]; len(r.Findings) > 0 {
			p.line("  %s", r.sentence())
		}
	}
}

// notes writes why cells are empty, and what has to be known of the others: each
// once, for all that it is true of.
func (d *Document) notes(p *printer, verbose bool) {
	type note struct{ what, text string }
	var all []note
	labels := map[note][]string{}
	say := func(label, what, text string) {
		n := note{what, text}
		if labels[n] == nil {
			all = append(all, n)
		}
		if !slices.Contains(labels[n], label) { // measures of several groups may have one name
			labels[n] = append(labels[n], label)
		}
	}
	for i := range d.Reports {
		r := &d.Reports[i]
		if r.Subject.Note != "" {
			say(r.Subject.Label, "", r.Subject.Note)
		}
		for j := range r.Measures {
			m := &r.Measures[j]
			switch {
			case m.Reason != "" && "left out: "+m.Reason != r.Subject.Note:
				say(r.Subject.Label, m.Name, m.Reason)
			case m.Note != "" && (verbose || m.Estimated || m.Measured() && m.Better == "" || m.Unit == Ratio || m.Group() == "density"):
				say(r.Subject.Label, m.Name, m.Note)
			}
			for _, f := range m.Parts {
				if verbose {
					say(r.Subject.Label, m.Name, f.Name+": "+f.Value)
				}
			}
		}
	}
	p.line("")
	for _, n := range all {
		// Several measures of a subject may have the same reason.
		var whats []string
		who := strings.Join(labels[n], ", ")
		for _, other := range all {
			if other.text == n.text && strings.Join(labels[other], ", ") == who {
				whats = append(whats, other.what)
			}
		}
		switch {
		case whats[0] != n.what:
		case n.what == "":
			p.line("%s: %s.", who, n.text)
		default:
			p.line("%s: %s: %s.", who, strings.Join(whats, ", "), n.text)
		}
	}
}

func widest(c []string) (most int) {
	for _, s := range c {
		most = max(most, utf8.RuneCountInString(s))
	}
	return most
}

// align fills a text up with spaces, numbers on their left.
func align(s string, width int, number bool) string {
	spaces := strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0))
	if number {
		return spaces + s
	}
	return s + spaces
}

// numeric reports whether a measure is a number.
func (d *Document) numeric(id string) bool {
	for i := range d.Reports {
		if m := d.Reports[i].Measure(id); m != nil {
			return m.Unit != ""
		}
	}
	return false
}
