// Package timeline shows the phases of a trace: as a table with a bar for each,
// or as JSON. Guests choose some of the words, so both are made safe.
package timeline

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/output"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
)

// bar is how many characters wide the picture of a whole trace is.
const bar = 40

// Table writes a line for each phase, those that are parts of it beneath it, and
// otherwise in the order in which they began. Times are milliseconds, from the
// beginning of the first.
func Table(w io.Writer, phases []trace.Phase) error {
	rows := arrange(phases)
	name, by := len("PHASE"), len("BY")
	for _, r := range rows {
		name, by = max(name, 2*r.depth+utf8.RuneCountInString(r.Name)), max(by, utf8.RuneCountInString(r.By))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s  %-*s  %8s  %8s\n", name, "PHASE", by, "BY", "BEGIN", "MS")
	for _, r := range rows {
		line := fmt.Sprintf("%-*s  %-*s  %8.1f  %8.1f  %s", name, strings.Repeat("  ", r.depth)+r.Name, by, r.By, r.BeginMS, r.TookMS, r.picture)
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// JSON writes one document: {"phases": […]}, in the order of Table's lines.
func JSON(w io.Writer, phases []trace.Phase) error {
	return output.IndentedJSON(w, struct {
		Phases []row `json:"phases"`
	}{arrange(phases)})
}

// row is one phase as it is shown.
type row struct {
	Name string `json:"name"`
	By   string `json:"by"`
	// Parent is the place, counted from 1, of the phase that this one is a part
	// of; 0 for none.
	Parent  int     `json:"parent"`
	BeginMS float64 `json:"beginMs"`
	TookMS  float64 `json:"tookMs"`

	depth   int
	picture string
}

// arrange sorts phases for reading.
func arrange(phases []trace.Phase) []row {
	parts := map[int][]int{} // by parent, places counted from 1
	var first, last time.Duration
	for i, p := range phases {
		parts[p.Parent] = append(parts[p.Parent], i+1)
		if i == 0 || p.Begin < first {
			first = p.Begin
		}
		last = max(last, p.End)
	}
	rows := []row{}
	var add func(parent, shown, depth int)
	add = func(parent, shown, depth int) {
		list := parts[parent]
		slices.SortStableFunc(list, func(a, b int) int { return int(phases[a-1].Begin - phases[b-1].Begin) })
		for _, n := range list {
			p := phases[n-1]
			rows = append(rows, row{
				Name: safetext.Line(p.Name), By: safetext.Line(p.By), Parent: shown,
				BeginMS: ms(p.Begin - first), TookMS: ms(p.Took()),
				depth: depth, picture: picture(p.Begin-first, p.End-first, last-first),
			})
			add(n, len(rows), depth+1)
		}
	}
	add(0, 0, 0)
	return rows
}

// ms is a time in milliseconds, in steps of a microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// picture is a bar from begin to end of what is whole long.
func picture(begin, end, whole time.Duration) string {
	if whole <= 0 {
		return ""
	}
	at := int(bar * begin / whole)
	n := max(1, int((bar*end+whole/2)/whole)-at)
	if at == bar {
		at--
	}
	return strings.Repeat(" ", at) + strings.Repeat("=", n)
}
