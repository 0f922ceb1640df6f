package report

import (
	"fmt"
	"io"
	"strings"
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
	if verbose && len(r.Untested) > 0 {
		p.line("\nNot tested")
		for _, u := range r.Untested {
			p.line("  %s: %s", u.What, u.Why)
		}
	}
	return p.err
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
	if open {
		p.item("verdict", string(f.Verdict))
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
			shared = "nobody knows what"
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
	weaker, leaked := r.Count(Weaker), r.Count(Leaked)
	looked := len(r.Findings) - r.Count(NotApplicable)
	s := fmt.Sprintf("%s shares with the host: %s. Of %d doors %d stand open", name, shared, looked, weaker+leaked)
	if weaker > 0 {
		s += fmt.Sprintf(", %d of them although they are declared shut", weaker)
	}
	if n := r.Count(Unknown); n > 0 {
		s += fmt.Sprintf("; %d could not be tried", n)
	}
	return s + "."
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
