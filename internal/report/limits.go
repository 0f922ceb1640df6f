package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// The limits of a document, so that whoever wrote it cannot make a reader use
// unbounded memory.
const (
	MaxSize     = 32 << 20 // bytes of JSON
	MaxReports  = 1024     // all containers of a busy machine
	MaxFindings = 512      // of one report, and measures
	MaxSamples  = 10_000   // of one measure
	MaxList     = 64       // of any other list
	MaxText     = 2048
	maxID       = 64
)

// ErrMalformed tells that a document is not one that Encode writes.
var ErrMalformed = errors.New("malformed report")

// Encode writes d as indented JSON with a newline at its end. The error wraps
// ErrMalformed if d is beyond a limit.
func (d *Document) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	b, err := marshal(d)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, err
	}
	if out.WriteByte('\n'); out.Len() > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, MaxSize)
	}
	return out.Bytes(), nil
}

// Decode reads a document that Encode wrote, however it is indented. The error
// wraps ErrMalformed for any other.
func Decode(r io.Reader) (*Document, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, MaxSize)
	}
	var d Document
	if err := Strict(b, &d); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return &d, nil
}

// Strict decodes JSON into v and takes only what encoding v gives again, but for
// white space between its parts. That leaves out unknown and repeated fields,
// names in another case, invalid UTF-8 and whatever follows the value: two readers
// of one text could otherwise see two things. The caller limits the length of b.
func Strict(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	again, err := marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var given bytes.Buffer
	if err := json.Compact(&given, b); err != nil || !bytes.Equal(given.Bytes(), again) {
		return fmt.Errorf("%w: written anew it would be different", ErrMalformed)
	}
	return nil
}

// marshal leaves <, > and & as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// CheckText finds fault with text that is longer than max bytes, not UTF-8, or not
// fit to be a part of one line.
func CheckText(s string, max int) error {
	switch {
	case len(s) > max:
		return fmt.Errorf("%w: a text of %d bytes, at most %d are allowed", ErrMalformed, len(s), max)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: text that is not UTF-8", ErrMalformed)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%w: text with control characters", ErrMalformed)
	}
	return nil
}

// CheckID finds fault with what is no finding's ID: words of a-z, 0-9 and "-" with
// dots between them.
func CheckID(s string) error {
	if len(s) == 0 || len(s) > maxID {
		return fmt.Errorf("%w: an ID of %d bytes", ErrMalformed, len(s))
	}
	for word := range strings.SplitSeq(s, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Errorf("%w: the ID %q", ErrMalformed, s)
		}
	}
	return nil
}

func texts(all ...string) error {
	for _, s := range all {
		if err := CheckText(s, MaxText); err != nil {
			return err
		}
	}
	return nil
}

func (d *Document) check() error {
	switch {
	case d.Format != Format:
		return fmt.Errorf("%w: format %d, this program knows %d", ErrMalformed, d.Format, Format)
	case !slices.Contains([]string{Probe, Audit, Compare}, d.Kind):
		return fmt.Errorf("%w: kind %.20q", ErrMalformed, d.Kind)
	case len(d.Reports) > MaxReports || len(d.Machine) > MaxList:
		return fmt.Errorf("%w: a list is too long", ErrMalformed)
	}
	labels := map[string]bool{}
	for i := range d.Reports {
		r := &d.Reports[i]
		if labels[r.Subject.Label] {
			return fmt.Errorf("%w: two subjects %.100q", ErrMalformed, r.Subject.Label)
		}
		labels[r.Subject.Label] = true
		if err := r.check(); err != nil {
			return err
		}
	}
	if len(d.Changes) > MaxReports*MaxFindings {
		return fmt.Errorf("%w: a list is too long", ErrMalformed)
	}
	for _, c := range d.Changes {
		for _, v := range []Verdict{c.Old, c.New} {
			if v != "" && !slices.Contains(verdicts, v) {
				return fmt.Errorf("%w: verdict %.20q", ErrMalformed, v)
			}
		}
		if err := errors.Join(CheckID(c.ID), texts(c.Label)); err != nil {
			return err
		}
	}
	if len(d.Notes) > MaxFindings || d.Threshold != "" && !slices.Contains(severities, d.Threshold) {
		return fmt.Errorf("%w: too many notes, or the threshold %.20q", ErrMalformed, d.Threshold)
	}
	if err := texts(d.Notes...); err != nil {
		return err
	}
	for _, f := range d.Machine {
		if err := texts(f.Name, f.Value); err != nil {
			return err
		}
	}
	return texts(d.Tool)
}

func (r *Report) check() error {
	if len(r.Findings) > MaxFindings || len(r.Measures) > MaxFindings || len(r.Shared) > MaxList || len(r.Untested) > MaxList {
		return fmt.Errorf("%w: a list is too long", ErrMalformed)
	}
	ids := map[string]bool{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if ids[f.ID] {
			return fmt.Errorf("%w: two findings %.100q", ErrMalformed, f.ID)
		}
		ids[f.ID] = true
		if err := f.check(); err != nil {
			return err
		}
	}
	measures := map[string]bool{}
	for i := range r.Measures {
		m := &r.Measures[i]
		if measures[m.ID] {
			return fmt.Errorf("%w: two measures %.100q", ErrMalformed, m.ID)
		}
		measures[m.ID] = true
		if err := m.check(); err != nil {
			return err
		}
	}
	for _, u := range r.Untested {
		if err := texts(u.What, u.Why); err != nil {
			return err
		}
	}
	s := &r.Subject
	return errors.Join(texts(r.Shared...), texts(s.Label, s.Boundary, s.Engine, s.Image, s.Command, s.Kernel, s.HostKernel, s.Note))
}

func (f *Finding) check() error {
	if err := CheckID(f.ID); err != nil {
		return err
	}
	switch {
	case !slices.Contains(verdicts, f.Verdict):
		return fmt.Errorf("%w: verdict %.20q", ErrMalformed, f.Verdict)
	case f.Severity != "" && !slices.Contains(severities, f.Severity):
		return fmt.Errorf("%w: severity %.20q", ErrMalformed, f.Severity)
	case f.Consequence != "" && !slices.Contains(Consequences, f.Consequence):
		return fmt.Errorf("%w: consequence %.20q", ErrMalformed, f.Consequence)
	case f.Verdict == Unknown && f.Reason == "":
		return fmt.Errorf("%w: %s is unknown for no reason", ErrMalformed, f.ID)
	case len(f.Evidence) > MaxList || len(f.References) > MaxList:
		return fmt.Errorf("%w: a list is too long", ErrMalformed)
	}
	if f.Waived != nil {
		if !f.Verdict.Open() && f.Verdict != Unknown {
			return fmt.Errorf("%w: %s is %s and waived", ErrMalformed, f.ID, f.Verdict)
		}
		if err := f.Waived.check(); err != nil {
			return err
		}
	}
	for _, e := range f.Evidence {
		if err := texts(e.Call, e.Errno, e.Value); err != nil {
			return err
		}
	}
	return errors.Join(texts(f.Door, f.Declared, f.Expected, f.Observed, f.Reason, f.Enables, f.Fix, f.Breaks, f.Recheck), texts(f.References...))
}
