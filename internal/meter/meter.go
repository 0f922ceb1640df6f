// Package meter measures what an environment costs the program that runs in it.
//
// cmd/bulkhead-meter is this package as one static program, which runs inside a
// workload of any engine, in a virtual machine, or on the host: it needs nothing
// of its surroundings, neither /proc nor a root that can be written to. Measure
// returns a Result: facts about the environment, figures of what calls, files and
// work take, and which features of the kernel work. Whoever compares environments
// reads the Result outside by Decode.
//
// A figure is taken in batches: as many turns of one operation as take a few
// milliseconds. A sample is the mean of one batch, so that the clock, which may
// itself be slow in there, counts little.
//
//	├─ 1 ─┼── 2 ──┼──── 4 ────┼─ n turns ─┼─ n turns ─┼ … until the time is over
//	 how many turns make a batch    sample      sample
//
// A feature is tried in a process of its own, this program again, which may be
// killed for it, and whose end takes back what it did. Nothing outside of those
// processes and of one directory changes, not even where nothing isolates them;
// the kernel may load a module of its own, as it does for any program that asks
// for what is in one.
package meter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// Result is what was measured. It is hostile input to whoever reads it outside: a
// workload may have written it.
type Result struct {
	Format   int       `json:"format"`
	Facts    Facts     `json:"facts"`
	Figures  []Figure  `json:"figures,omitempty"`
	Features []Feature `json:"features,omitempty"`
}

// Figure is one thing that was measured, in the order in which it was. Without
// samples Error says why.
type Figure struct {
	// ID is stable: "calls.getpid". The part before the dot is its group.
	ID      string      `json:"id"`
	Unit    report.Unit `json:"unit"`
	Samples []float64   `json:"samples,omitempty"`
	Error   string      `json:"error,omitempty"`
}

// Feature is one thing that a kernel can do.
type Feature struct {
	Name string `json:"name"`
	// Call is what was asked of the kernel, the step that failed if one did.
	Call string `json:"call"`
	// Errno is "" if it works, and otherwise how the call ended: the name of an error
	// or of the signal that killed the process, Hangs, or Wrong.
	Errno string `json:"errno,omitempty"`
}

// Works reports whether the feature does.
func (f Feature) Works() bool { return f.Errno == "" }

// What a Feature has as Errno beside the names of errors and signals.
const (
	Hangs = "hangs" // the call did not end in time
	Wrong = "wrong" // it succeeded without doing what it is for
)

// The groups. Facts are always in a Result.
const (
	GroupFacts    = "facts"
	GroupCalls    = "calls"
	GroupFiles    = "files"
	GroupWork     = "work"
	GroupFeatures = "features"
)

// Groups are all.
var Groups = []string{GroupFacts, GroupCalls, GroupFiles, GroupWork, GroupFeatures}

const (
	// Format changes with the fields and the meaning of the figures.
	Format = 1
	// MaxSize is the size of a Result in bytes, MaxSamples what a figure has at most.
	MaxSize    = 1 << 20
	MaxSamples = 200

	maxText       = 512
	maxNamespaces = 32
)

// Encode returns one line of JSON.
func (r *Result) Encode() ([]byte, error) { return line(r) }

func line(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Decode reads a line that Encode wrote. An error wraps report.ErrMalformed.
func Decode(b []byte) (*Result, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", report.ErrMalformed, MaxSize)
	}
	var r Result
	if err := report.Strict(bytes.TrimSuffix(b, []byte{'\n'}), &r); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return &r, nil
}

func (r *Result) check() error {
	if r.Format != Format {
		return fmt.Errorf("%w: format %d, this program knows %d", report.ErrMalformed, r.Format, Format)
	}
	if err := r.Facts.check(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range r.Figures {
		f := &r.Figures[i]
		if seen[f.ID] {
			return fmt.Errorf("%w: two figures %.80q", report.ErrMalformed, f.ID)
		}
		seen[f.ID] = true
		if err := f.check(); err != nil {
			return err
		}
	}
	clear(seen)
	for _, f := range r.Features {
		if seen[f.Name] || !slices.ContainsFunc(features, func(known feature) bool { return known.name == f.Name }) {
			return fmt.Errorf("%w: a feature %.80q", report.ErrMalformed, f.Name)
		}
		seen[f.Name] = true
		if err := checkTexts(f.Call, f.Errno); err != nil {
			return err
		}
	}
	return nil
}

func (f *Figure) check() error {
	n := slices.IndexFunc(figures, func(known figure) bool { return known.id == f.ID })
	switch {
	case n < 0 || f.Unit != figures[n].unit:
		return fmt.Errorf("%w: a figure %.80q in %.20q", report.ErrMalformed, f.ID, f.Unit)
	case len(f.Samples) > MaxSamples:
		return fmt.Errorf("%w: %s has %d samples", report.ErrMalformed, f.ID, len(f.Samples))
	case (len(f.Samples) == 0) != (f.Error != ""):
		return fmt.Errorf("%w: %s has samples and an error, or neither", report.ErrMalformed, f.ID)
	}
	for _, s := range f.Samples {
		if !(s > 0) || math.IsInf(s, 0) {
			return fmt.Errorf("%w: %s has the sample %v", report.ErrMalformed, f.ID, s)
		}
	}
	return checkTexts(f.Error)
}

func checkTexts(all ...string) error {
	for _, s := range all {
		if err := report.CheckText(s, maxText); err != nil {
			return err
		}
	}
	return nil
}

// clean makes text from anywhere fit for a Result.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxText {
		s = s[:maxText]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	return s
}
