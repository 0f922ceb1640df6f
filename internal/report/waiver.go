package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Waiver is somebody's word that a finding is accepted for a time. It hides
// nothing: the door stands open, is shown and counted; the exit code alone passes
// over it.
type Waiver struct {
	Owner  string `json:"owner"`
	Reason string `json:"reason"`
	// Until is the last day on which it holds, in UTC: "2027-01-31".
	Until string `json:"until"`
}

// Waivers are those of one file, by line.
type Waivers []namedWaiver

type namedWaiver struct {
	line        int
	id, subject string
	last        time.Time
	waiver      Waiver
}

const (
	maxWaiversSize = 1 << 20 // bytes
	day            = "2006-01-02"
)

// ParseWaivers reads a file of waivers. Each line has the ID of a finding, the
// subject's label, the last day, the owner and the reason, with white space
// between them; a label with white space is quoted as in Go and JSON. Empty lines
// and those that begin with # are passed over. The error wraps ErrMalformed and
// names the line.
func ParseWaivers(b []byte) (Waivers, error) {
	if len(b) > maxWaiversSize {
		return nil, fmt.Errorf("%w: waivers of more than %d bytes", ErrMalformed, maxWaiversSize)
	}
	var list Waivers
	n := 0
	for text := range strings.SplitSeq(string(b), "\n") {
		n++
		text = strings.Trim(text, " \t\r")
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		w, err := parseWaiver(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		w.line = n
		if i := slices.IndexFunc(list, func(o namedWaiver) bool { return o.id == w.id && o.subject == w.subject }); i >= 0 {
			return nil, fmt.Errorf("%w: lines %d and %d waive the same", ErrMalformed, list[i].line, n)
		}
		if len(list) == MaxFindings {
			return nil, fmt.Errorf("%w: more than %d waivers", ErrMalformed, MaxFindings)
		}
		list = append(list, w)
	}
	return list, nil
}

func parseWaiver(text string) (w namedWaiver, err error) {
	if err := CheckText(strings.ReplaceAll(text, "\t", " "), MaxText); err != nil {
		return w, err
	}
	var until string
	w.id, text = word(text)
	if w.subject, text, err = label(text); err != nil {
		return w, err
	}
	until, text = word(text)
	w.waiver.Owner, w.waiver.Reason = word(text)
	w.waiver.Until = until
	if w.waiver.Reason == "" {
		return w, fmt.Errorf("%w: a waiver has a finding, a subject, a last day, an owner and a reason", ErrMalformed)
	}
	w.waiver.Reason = strings.ReplaceAll(w.waiver.Reason, "\t", " ")
	if err := CheckID(w.id); err != nil {
		return w, err
	}
	return w, w.parseUntil()
}

func (w *namedWaiver) parseUntil() (err error) {
	if w.last, err = time.Parse(day, w.waiver.Until); err != nil || w.last.Year() < 2000 {
		return fmt.Errorf("%w: %.40q is no day such as 2027-01-31", ErrMalformed, w.waiver.Until)
	}
	return nil
}

// word is the first of a text, and what is behind it.
func word(text string) (first, rest string) {
	n := strings.IndexAny(text, " \t")
	if n < 0 {
		return text, ""
	}
	return text[:n], strings.TrimLeft(text[n:], " \t")
}

// label is a word that may be quoted.
func label(text string) (first, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		first, rest = word(text)
		return first, rest, nil
	}
	quoted, err := strconv.QuotedPrefix(text)
	if err == nil {
		first, err = strconv.Unquote(quoted)
	}
	if err != nil || len(text) > len(quoted) && !strings.ContainsAny(text[len(quoted):len(quoted)+1], " \t") {
		return "", "", fmt.Errorf("%w: a subject that begins with a quote and does not end with one", ErrMalformed)
	}
	return first, strings.TrimLeft(text[len(quoted):], " \t"), CheckText(first, MaxText)
}

// Waive marks the findings of d that somebody accepts, and adds to its notes which
// waivers have expired or concern no finding of d that is open or unknown.
func (d *Document) Waive(list Waivers, now time.Time) {
	for _, w := range list {
		f := d.finding(w.subject, w.id)
		expired := !now.UTC().Before(w.last.AddDate(0, 0, 1))
		note := ""
		switch {
		case expired:
			note = fmt.Sprintf("the waiver of %s for %s expired on %s and is not in force", w.id, w.subject, w.waiver.Until)
		case !f.Verdict.Open() && f.Verdict != Unknown:
			note = fmt.Sprintf("the waiver of %s for %s is not used: no such door is open or unknown", w.id, w.subject)
		default:
			f.Waived = &w.waiver
			continue
		}
		if len(note) > MaxText {
			note = strings.ToValidUTF8(note[:MaxText], "")
		}
		d.Notes = append(d.Notes, note)
	}
}

func (d *Document) finding(subject, id string) *Finding {
	for i := range d.Reports {
		if d.Reports[i].Subject.Label == subject {
			return d.Reports[i].finding(id)
		}
	}
	return &Finding{}
}

func (w *Waiver) check() error {
	if err := (&namedWaiver{waiver: *w}).parseUntil(); err != nil {
		return err
	}
	if w.Owner == "" || w.Reason == "" {
		return fmt.Errorf("%w: a waiver without owner or reason", ErrMalformed)
	}
	return texts(w.Owner, w.Reason)
}

// Counts reports whether a finding decides the exit code: its verdict is open or
// unknown, nobody waived it, and it is no less severe than the threshold.
func (d *Document) Counts(f *Finding) bool {
	if !f.Verdict.Open() && f.Verdict != Unknown || f.Waived != nil {
		return false
	}
	return d.Threshold == "" || f.Severity == "" || slices.Index(severities, f.Severity) <= slices.Index(severities, d.Threshold)
}

// ParseSeverity reads one of the severities.
func ParseSeverity(s string) (Severity, error) {
	if !slices.Contains(severities, Severity(s)) {
		return "", fmt.Errorf("%q is none of critical, high, medium and low", s)
	}
	return Severity(s), nil
}
