package probe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// Observations is what the prober tells from inside a workload. It is hostile
// input to whoever reads it outside.
type Observations struct {
	Format int `json:"format"`
	// Nonce is the one of the Context, which nobody else in the workload knows.
	Nonce string `json:"nonce"`
	// Kernel is the release that uname(2) tells.
	Kernel string        `json:"kernel"`
	Tried  []Observation `json:"tried"`
	// Surface are counts of what can be reached.
	Surface []Count `json:"surface,omitempty"`
}

// Observation is what one probe tried.
type Observation struct {
	Probe string            `json:"probe"`
	Calls []report.Evidence `json:"calls,omitempty"`
	// Trouble says why it could not try everything; "" if it could.
	Trouble string `json:"trouble,omitempty"`
}

// observationFormat changes with the fields and with the calls that probes make.
const observationFormat = 6

// The limits of what comes from inside.
const (
	MaxObservations = 1 << 20 // bytes
	maxCalls        = report.MaxList
	maxText         = report.MaxText
)

// Encode returns one line of JSON.
func (o *Observations) Encode() ([]byte, error) { return line(o) }

func line(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Decode reads what the prober wrote, within limits. An error wraps
// report.ErrMalformed.
func Decode(b []byte) (*Observations, error) {
	if len(b) > MaxObservations {
		return nil, fmt.Errorf("%w: more than %d bytes", report.ErrMalformed, MaxObservations)
	}
	var o Observations
	if err := report.Strict(bytes.TrimSuffix(b, []byte{'\n'}), &o); err != nil {
		return nil, err
	}
	if o.Format != observationFormat || len(o.Tried) > len(Probes()) {
		return nil, fmt.Errorf("%w: format %d with %d probes", report.ErrMalformed, o.Format, len(o.Tried))
	}
	seen := map[string]bool{}
	for _, t := range o.Tried {
		if !exists(t.Probe) || seen[t.Probe] || len(t.Calls) > maxCalls {
			return nil, fmt.Errorf("%w: an observation %.80q", report.ErrMalformed, t.Probe)
		}
		seen[t.Probe] = true
		texts := []string{t.Trouble}
		for _, c := range t.Calls {
			texts = append(texts, c.Call, c.Errno, c.Value)
		}
		for _, s := range texts {
			if err := report.CheckText(s, maxText); err != nil {
				return nil, err
			}
		}
	}
	if err := checkCounts(o.Surface); err != nil {
		return nil, err
	}
	for _, s := range []string{o.Nonce, o.Kernel} {
		if err := report.CheckText(s, maxText); err != nil {
			return nil, err
		}
	}
	return &o, nil
}

// clean makes text from anywhere fit for an observation.
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
