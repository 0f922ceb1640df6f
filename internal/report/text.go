package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Text writes a report for a person: what is shared, how many doors stand open,
// the open ones by their consequence, what is unknown, and a line for the others.
// Verbose shows every finding with its evidence. Its text must have come through
// Decode, or be the program's own: it goes to a terminal as it is.
func (r *Report) Text(w io.Writer, verbose bool) error {
	p := &printer{w: w}
	p.line("%s", r.sentence())
	if r.Subject.Note != "" {
		p.line("Note: %s.", r.Subject.Note)
	}
	for _, c := range Consequences {
		first := true
		for i := range r.Findings {
			f := &r.Findings[i]
			if !f.Verdict.Open() || f.Consequence != c {
				continue
			}
			if first {
				p.line("\nOpen: %s", c)
				first = false
			}
			f.text(p, true, verbose)
		}
	}
	r.others(p, Unknown, "Unknown, which is no pass", true, verbose)
	r.others(p, Held, "Held", verbose, verbose)
	r.others(p, NotApplicable, "Not applicable", verbose, verbose)
	r.surface(p, verbose)
	if verbose && len(r.Untested) > 0 {
		p.line("\nNot tested")
		for _, u := range r.Untested {
			p.line("  %s: %s", u.What, u.Why)
		}
	}
	return p.err
}

// surface writes what was counted, in one line.
func (r *Report) surface(p *printer, verbose bool) {
	var words []string
	for i := range r.Measures {
		if m := &r.Measures[i]; m.Group() == "surface" && m.Measured() {
			words = append(words, m.Name+" "+m.Value())
		}
	}
	if len(words) == 0 {
		return
	}
	p.line("\nAttack surface, as counted inside: %s", strings.Join(words, ", "))
	for i := range r.Measures {
		if m := &r.Measures[i]; verbose && m.Group() == "surface" {
			p.line("  %s: %s", m.Name, m.Note+m.Reason)
		}
	}
}

// others writes the findings with one verdict, or only how many there are in each
// group.
func (r *Report) others(p *printer, v Verdict, title string, each, verbose bool) {
	n := r.Count(v)
	if n == 0 {
		return
	}
	if !each {
		var groups []string
		count := map[string]int{}
		for i := range r.Findings {
			if f := &r.Findings[i]; f.Verdict == v {
				if count[f.Group()] == 0 {
					groups = append(groups, f.Group())
				}
				count[f.Group()]++
			}
		}
		for i, g := range groups {
			groups[i] = fmt.Sprintf("%s %d", g, count[g])
		}
		p.line("\n%s: %d (%s)", title, n, strings.Join(groups, ", "))
		return
	}
	if v == Unknown && n == len(r.Findings) {
		p.line("\n%s: all %d, as %s", title, n, r.Findings[0].Reason)
		return
	}
	p.line("\n%s: %d", title, n)
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Verdict == v {
			f.text(p, false, verbose)
		}
	}
}

// text writes one finding.
func (f *Finding) text(p *printer, open, verbose bool) {
	line := f.Observed
	if f.Reason != "" {
		line = f.Reason
	}
	p.line("  %-30s %s: %s", f.ID, f.Door, line)
	if w := f.Waived; w != nil {
		p.item("waived", fmt.Sprintf("until %s by %s: %s", w.Until, w.Owner, w.Reason))
	}
	if open {
		p.item("verdict", string(f.Verdict))
		p.item("severity", string(f.Severity))
		p.item("declared", f.Declared)
		p.item("enables", f.Enables)
		p.item("fix", f.Fix)
		p.item("may break", f.Breaks)
	}
	if !verbose {
		return
	}
	p.item("expected", f.Expected)
	for _, e := range f.Evidence {
		ended := e.Errno
		if e.Value != "" {
			ended = strings.TrimSpace(ended + " " + e.Value)
		}
		if ended == "" {
			ended = "succeeds"
		}
		p.item("evidence", e.Call+" = "+ended)
	}
	p.item("see", strings.Join(f.References, "; "))
	if open {
		p.item("re-check", f.Recheck)
	}
}

// sentence is the first one of a report.
func (r *Report) sentence() string {
	shared := "nothing that was looked at"
	switch len(r.Shared) {
	case 0:
		if r.Count(Unknown) == len(r.Findings) {
			shared = "what, nobody knows"
		}
	case 1:
		shared = r.Shared[0]
	default:
		shared = strings.Join(r.Shared[:len(r.Shared)-1], ", ") + " and " + r.Shared[len(r.Shared)-1]
	}
	name := r.Subject.Label
	if name == "" {
		name = "the workload"
	}
	s := name + " shares with the host: " + shared + "."
	if r.Subject.Boundary == Host {
		s = "This is the host."
	}
	return s + " " + r.Standing()
}

// Standing says how many doors stand open, and what is to be known of them.
func (r *Report) Standing() string {
	s := fmt.Sprintf("Of %d doors %d stand open", r.Looked(), r.Opened())
	if inside := r.Inside(); inside > 0 && inside == r.Opened() {
		s += ", none of them to the host"
	} else if inside > 0 {
		s += fmt.Sprintf(", %d of them inside alone", inside)
	}
	if n := r.Count(Weaker); n > 0 {
		s += fmt.Sprintf(", %d of them although they are declared shut", n)
	}
	if n := r.Count(Unknown); n > 0 {
		s += fmt.Sprintf("; %d could not be tried", n)
	}
	if n := r.waived(); n > 0 {
		s += fmt.Sprintf("; %d of these waived", n)
	}
	return s + "."
}

// waived is how many findings somebody accepts.
func (r *Report) waived() (n int) {
	for i := range r.Findings {
		if r.Findings[i].Waived != nil {
			n++
		}
	}
	return n
}

// marks stand for verdicts in a matrix, insideMarks for those of doors that lead no
// further than to the workload's own kernel.
var insideMarks = map[Verdict]string{Leaked: "inside", Weaker: "INSIDE"}

var marks = map[Verdict]string{Held: "held", Leaked: "LEAKED", Weaker: "WEAKER", Unknown: "unknown", NotApplicable: "-"}

// Matrix writes one line for each door and one column for each subject. Doors that
// are shut, or not there, for all of them are counted only, unless verbose is set.
func (d *Document) Matrix(w io.Writer, verbose bool) error {
	p := &printer{w: w}
	for i := range d.Reports {
		r := &d.Reports[i]
		p.line("%s", r.sentence())
		if r.Subject.Note != "" {
			p.line("  Note: %s.", r.Subject.Note)
		}
	}
	const first = 30
	row := fmt.Sprintf("\n%-*s", first, "door")
	kernel := fmt.Sprintf("%-*s", first, "kernel")
	for i := range d.Reports {
		s := &d.Reports[i].Subject
		row += fmt.Sprintf("  %-24s", s.Label)
		kernel += fmt.Sprintf("  %-24s", s.Kernel)
	}
	p.line("%s", strings.TrimRight(row, " "))
	p.line("%s", strings.TrimRight(kernel, " "))
	alike, inside := 0, false
	for _, id := range d.ids() {
		row, dull := fmt.Sprintf("%-*s", first, id), true
		for i := range d.Reports {
			f := d.Reports[i].finding(id)
			dull = dull && (f.Verdict == Held || f.Verdict == NotApplicable)
			mark := marks[f.Verdict]
			if f.Verdict.Open() && f.Consequence.Inside() {
				mark, inside = insideMarks[f.Verdict], true
			}
			if f.Waived != nil {
				mark += ", waived"
			}
			row += fmt.Sprintf("  %-24s", mark)
		}
		if dull && !verbose {
			alike++
			continue
		}
		p.line("%s", strings.TrimRight(row, " "))
	}
	if inside {
		p.line("Inside: open, and leads no further than to the workload's own kernel.")
	}
	if alike > 0 {
		p.line("%d more are shut, or do not exist, behind all of them; --verbose lists them.", alike)
	}
	if ids := slices.DeleteFunc(d.MeasureIDs(), func(id string) bool { return group(id) != "surface" }); len(ids) > 0 {
		d.table(p, "Attack surface, as counted inside", ids, false)
	}
	return p.err
}

// ids are those of all findings, in the order in which they are found first.
func (d *Document) ids() (ids []string) {
	seen := map[string]bool{}
	for i := range d.Reports {
		for j := range d.Reports[i].Findings {
			if id := d.Reports[i].Findings[j].ID; !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// finding is the one with an ID, and one without a verdict where there is none.
func (r *Report) finding(id string) *Finding {
	for i := range r.Findings {
		if r.Findings[i].ID == id {
			return &r.Findings[i]
		}
	}
	return &Finding{}
}

// TextChanges writes what changed since an earlier document.
func (d *Document) TextChanges(w io.Writer, since time.Time) error {
	p := &printer{w: w}
	p.line("\nChanged since %s: %d", since.Format("2006-01-02 15:04:05 MST"), len(d.Changes))
	for _, c := range d.Changes {
		words := []string{string(c.Old), string(c.New)}
		for n := range words {
			if words[n] == "" {
				words[n] = "not looked at"
			}
		}
		p.line("  %-12s %-30s %s, before: %s", c.Label, c.ID, words[1], words[0])
	}
	return p.err
}

// TextNotes writes what concerns all of the document: what does not decide the exit
// code, and its notes. It writes nothing where there is nothing.
func (d *Document) TextNotes(w io.Writer) error {
	p := &printer{w: w}
	below := map[bool]int{}
	for i := range d.Reports {
		for j := range d.Reports[i].Findings {
			if f := &d.Reports[i].Findings[j]; (f.Verdict.Open() || f.Verdict == Unknown) && f.Waived == nil && !d.Counts(f) {
				below[f.Verdict.Open()]++
			}
		}
	}
	if d.Threshold != "" || len(d.Notes) > 0 {
		p.line("")
	}
	if d.Threshold != "" {
		p.line("Less than %s, and without a say in the exit code: %d open, %d unknown.", d.Threshold, below[true], below[false])
	}
	for _, n := range d.Notes {
		p.line("Note: %s.", n)
	}
	return p.err
}

// printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) item(name, text string) {
	if text != "" {
		p.line("    %-10s %s", name+":", text)
	}
}
