package comparing

import (
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// report is what is known of a way: every measure that was wanted, with a value
// or a reason.
func (w *way) report(c *comparison) report.Report {
	r := report.Report{Subject: w.subject}
	r.Subject.Image = c.Image
	if s, ok := w.driver.(*system); ok && s.image != "" {
		r.Subject.Image = s.image
	}
	if w.ours && len(c.Flags) > 0 {
		r.Subject.Command = fit(safetext.Command(c.Flags), report.MaxText)
	}
	if c.made.user != "" && !w.knowsImages() {
		r.Subject.Note = strings.TrimPrefix(r.Subject.Note+"; as root, and not as the image's user "+fit(c.made.user, 100), "; ")
	}
	for _, k := range kinds {
		if k.group != "" && !c.wants(k.group) || strings.HasPrefix(k.id, "start.cold") && !c.Cold {
			continue
		}
		m := *w.measure(k.id)
		if !m.Measured() && m.Text == "" && m.Reason == "" {
			if m.Reason = w.missing; m.Reason == "" {
				m.Reason = "it was not measured"
			}
		}
		r.Measures = append(r.Measures, m)
	}
	noteUnmoved(&r)
	if w.missing != "" {
		r.Subject.Note = "left out: " + w.missing
	}
	if w.doors != nil {
		r.Shared, r.Findings, r.Untested = w.doors.Shared, w.doors.Findings, w.doors.Untested
		r.Measures = append(r.Measures, w.doors.Measures...) // the attack surface
	}
	return r
}

// knowsImages reports whether a way reads the image's configuration.
func (w *way) knowsImages() bool {
	switch w.driver.(type) {
	case *direct, *ociRuntime:
		return false
	}
	return true
}
