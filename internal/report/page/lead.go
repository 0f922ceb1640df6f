package page

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// title is what was looked at.
func title(d *report.Document) string {
	image := ""
	if len(d.Reports) > 0 {
		image = d.Reports[0].Subject.Image
	}
	for i := range d.Reports {
		if d.Reports[i].Subject.Image != image {
			image = ""
		}
	}
	if image = clip(path.Base(image), 60); image == "." || d.Kind == report.Audit {
		image = ""
	}
	n := len(d.Reports)
	switch {
	case n == 1:
		label := newSubject(0, &d.Reports[0].Subject).Label
		if image == "" {
			return label
		}
		return image + ", " + label
	case image == "" && d.Kind == report.Audit:
		return fmt.Sprintf("%d configurations", n)
	case image == "":
		return fmt.Sprintf("%d subjects", n)
	case d.Kind == report.Compare:
		return image + " in " + count(n) + " ways"
	}
	return image + " behind " + count(n) + " boundaries"
}

// lead is what the document says in a few sentences. All of it is computed; nothing
// is claimed that noise could explain.
func lead(d *report.Document) (out []sentence) {
	if len(d.Reports) == 0 {
		return []sentence{say("There was nothing to look at.")}
	}
	for _, f := range []func(*report.Document) []sentence{starts, neighbours, kernels, verdicts, cautions, changed} {
		out = append(out, f(d)...)
	}
	if len(out) == 0 {
		out = append(out, say("Nothing could be summed up."))
	}
	return out
}

// startID is the measure that the first sentence is about.
const startID = "start.output"

// starts says who was first, and by how much.
func starts(whole *report.Document) []sentence {
	d := withoutBaseline(whole)
	var all []*report.Report
	for i := range d.Reports {
		if m := d.Reports[i].Measure(startID); m != nil && m.Measured() && m.Unit == report.Seconds && !m.Estimated {
			all = append(all, &d.Reports[i])
		}
	}
	if len(all) < 2 {
		return nil
	}
	best := d.Best(startID)
	if len(best) == 0 {
		return []sentence{say("Noise cannot tell which of %s ways starts first.", count(len(all)))}
	}
	first := &d.Reports[best[0]]
	m := first.Measure(startID)
	var out sentence
	if len(best) == 1 {
		out = say("Of %s ways to isolate it, %v was first to its first output, after %s", count(len(all)), label(first), number(m.Median(), m.Unit))
		if base := baseline(whole); base != nil {
			if r := ratio(m, base.Measure(startID)); r != "" {
				out = append(out, say(", %s times what it takes without a boundary", strings.TrimPrefix(r, "×"))...)
			}
		}
	} else {
		var names []string
		for _, i := range best {
			names = append(names, label(&d.Reports[i]))
		}
		out = say("Of %s ways to isolate it, %v were first to their first output, and noise cannot tell them apart", count(len(all)), names)
	}
	if worst := slices.MaxFunc(all, func(a, b *report.Report) int {
		return cmp.Compare(a.Measure(startID).Median(), b.Measure(startID).Median())
	}); alone(worst, all) && len(best) == 1 {
		out = append(out, say("; %v was last, after %s, %s times as long", label(worst), number(worst.Measure(startID).Median(), report.Seconds), strings.TrimPrefix(times(worst.Measure(startID).Median()/m.Median()), "×"))...)
	}
	return []sentence{append(out, piece{Text: "."})}
}

// neighbours says which one is felt most, with limits and without: what it does to the
// slow requests, if noise separates that from a neighbour that sleeps.
func neighbours(whole *report.Document) (out []sentence) {
	d := withoutBaseline(whole)
	for _, with := range []struct{ group, limits string }{{"limited-p99", "with"}, {"unlimited-p99", "without"}} {
		var measured []string
		var worst *report.Measure
		var of *report.Report
		for i := range d.Reports {
			r := &d.Reports[i]
			idle := r.Measure(with.group + ".idle")
			if idle == nil || !idle.Measured() {
				continue
			}
			measured = append(measured, label(r))
			for j := range r.Measures {
				m := &r.Measures[j]
				if m.Group() == with.group && report.Separated(m, idle) && m.Median() > idle.Median() && (worst == nil || m.Median() > worst.Median()) {
					worst, of = m, r
				}
			}
		}
		switch {
		case len(measured) == 0:
		case worst == nil:
			out = append(out, say("Noise hides what a neighbour %s limits costs %v.", with.limits, measured))
		default:
			out = append(out, say("Of neighbours %s limits, %v is felt most, behind %v: the p99 of requests is %s times what it is alone.",
				with.limits, []string{worst.Name}, label(of), strings.TrimPrefix(times(worst.Median()), "×")))
		}
	}
	return out
}

// alone reports whether noise separates one from all others.
func alone(r *report.Report, all []*report.Report) bool {
	return !slices.ContainsFunc(all, func(o *report.Report) bool {
		return o != r && !report.Separated(o.Measure(startID), r.Measure(startID))
	})
}

func label(r *report.Report) string {
	return newSubject(0, &r.Subject).Label
}

// kernelID is the finding that says whether the kernel is the host's.
const kernelID = "kernel.own"

// kernels says who has a kernel of his own, by what the prober found.
func kernels(d *report.Document) []sentence {
	others := withoutBaseline(d)
	own, all := []string{}, 0
	for i := range others.Reports {
		r := &others.Reports[i]
		j := slices.IndexFunc(r.Findings, func(f report.Finding) bool { return f.ID == kernelID })
		if j < 0 || r.Findings[j].Verdict == report.Unknown {
			continue
		}
		all++
		if r.Findings[j].Verdict == report.Held {
			own = append(own, label(r))
		}
	}
	everybody := "All " + count(all)
	if all == 2 {
		everybody = "Both"
	}
	switch {
	case d.Kind == report.Audit || len(d.Reports) == 1 || all < 2:
		return nil
	case len(own) == 0:
		return []sentence{say("%s share the host's kernel.", everybody)}
	case len(own) == all:
		return []sentence{say("%s have a kernel of their own.", everybody)}
	case len(own) == 1:
		return []sentence{say("Only %v has a kernel of its own.", own)}
	case all-len(own) == 1:
		return []sentence{say("%v have a kernel of their own; the other one shares the host's.", own)}
	}
	return []sentence{say("%v have a kernel of their own; the other %s share the host's.", own, count(all-len(own)))}
}

// verdicts says where doors stand open.
func verdicts(whole *report.Document) (out []sentence) {
	d := withoutBaseline(whole)
	var shut, unsure, open []string
	var most *report.Report
	for i := range d.Reports {
		r := &d.Reports[i]
		n := r.Opened()
		switch {
		case len(r.Findings) == 0 || r.Count(report.Unknown) == len(r.Findings):
			continue
		case n > 0:
			open = append(open, label(r))
			if most == nil || n > most.Opened() {
				most = r
			}
		case r.Count(report.Unknown) > 0:
			unsure = append(unsure, label(r))
		default:
			shut = append(shut, label(r))
		}
	}
	if len(d.Reports) == 1 {
		return one(&d.Reports[0])
	}
	if d.Kind == report.Audit {
		return audited(d, shut, unsure, open, most)
	}
	if len(shut) > 0 {
		out = append(out, say("Every door that was tried is shut behind %v.", shut))
	}
	if len(unsure) > 0 {
		out = append(out, say("Behind %v none is known to be open, and some could not be tried.", unsure))
	}
	switch {
	case len(open) == 1:
		out = append(out, say("%v leaves %d of %d open.", open, most.Opened(), most.Looked()))
	case len(open) > 1:
		out = append(out, say("%s leave doors open%s; %v leaves the most, %d of %d.", capital(count(len(open))), unharmed(d), label(most), most.Opened(), most.Looked()))
	}
	return out
}

// unharmed says whose open doors all lead no further than to the workload's own
// kernel.
func unharmed(d *report.Document) string {
	n := 0
	for i := range d.Reports {
		if r := &d.Reports[i]; r.Opened() > 0 && r.Inside() == r.Opened() {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %s of them only inside", count(n))
}

// audited says the same of configurations, the worst first.
func audited(d *report.Document, shut, unsure, open []string, most *report.Report) (out []sentence) {
	if most == nil {
		out = append(out, say("No door is known to be open in any of %d configurations.", len(d.Reports)))
	} else {
		out = append(out, say("%d of %d leave doors open; %v leaves the most, %d of %d.", len(open), len(d.Reports), label(most), most.Opened(), most.Looked()))
	}
	out = append(out, worst(d)...)
	if len(unsure) > 0 {
		out = append(out, say("Nothing is known to be open, and something is unknown, of %v.", unsure))
	}
	if len(shut) > 0 {
		out = append(out, say("Nothing is left open by %v.", shut))
	}
	return out
}

// one says what the report of a single subject does on the terminal.
func one(r *report.Report) []sentence {
	if len(r.Findings) == 0 {
		return nil
	}
	if why := untried(r); why != "" {
		return []sentence{say("No door could be tried: %v.", clip(why, maxCell))}
	}
	var s sentence
	switch shared := r.Shared; {
	case r.Subject.Boundary == report.Host:
		s = say("This is the host. ")
	case len(shared) > 0:
		s = say("%v shares with the host %v. ", label(r), shared)
	default:
		s = say("%v shares with the host nothing that was looked at. ", label(r))
	}
	return []sentence{append(s, piece{Text: r.Standing()})}
}

// worst counts open doors by severity.
func worst(d *report.Document) []sentence {
	var words []string
	for _, s := range severities {
		n := 0
		for i := range d.Reports {
			for _, f := range d.Reports[i].Findings {
				if f.Verdict.Open() && f.Severity == s {
					n++
				}
			}
		}
		if n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(words) == 0 {
		return nil
	}
	return []sentence{say("Open by severity: %s.", strings.Join(words, ", "))}
}

// cautions says what a reader has to know of the figures.
func cautions(d *report.Document) (out []sentence) {
	var emulated, reasons []string
	unmeasured := map[string][]string{} // by the one reason
	for i := range d.Reports {
		r := &d.Reports[i]
		if newSubject(i, &r.Subject).Emulated {
			emulated = append(emulated, label(r))
		}
		if why := absent(r); why != "" {
			if unmeasured[why] == nil {
				reasons = append(reasons, why)
			}
			unmeasured[why] = append(unmeasured[why], label(r))
		}
	}
	if len(emulated) > 0 {
		out = append(out, say("The processor was emulated for %v.", emulated))
	}
	for _, why := range reasons {
		out = append(out, say("Not measured: %v: %v.", unmeasured[why], why))
	}
	return out
}

// changed says what an earlier document did not.
func changed(d *report.Document) []sentence {
	opened := 0
	for _, c := range d.Changes {
		if c.Opened() {
			opened++
		}
	}
	if len(d.Changes) == 0 {
		return nil
	}
	return []sentence{say("%s changed since the earlier report; %s opened.", several(len(d.Changes), "verdict"), several(opened, "door"))}
}
