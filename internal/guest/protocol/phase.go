package protocol

import (
	"bytes"
	"encoding/json"
	"time"
)

// Limits of phases.
const (
	MaxPhases    = 64
	maxPhaseName = 64 // bytes
	maxPhaseTime = time.Hour
)

// Phase is a part of what the agent did for a request, by the guest's clock.
type Phase struct {
	Name string `json:"name"`
	// Parent is the place, counted from 1, of the phase that this one is a part
	// of, before this one; 0 for none.
	Parent int `json:"parent,omitempty"`
	// Begin and End are times since the agent had the request, at most an hour.
	Begin time.Duration `json:"begin"`
	End   time.Duration `json:"end"`
}

// Phases are those of a Reply. The number is checked while they are read, not
// after.
type Phases []Phase

// UnmarshalJSON reads a list of at most MaxPhases.
func (p *Phases) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return violation("phases that are no list")
	}
	*p = nil
	for dec.More() {
		if len(*p) >= MaxPhases {
			return violation("more than %d phases", MaxPhases)
		}
		var one Phase
		if err := dec.Decode(&one); err != nil {
			return err
		}
		*p = append(*p, one)
	}
	return nil
}

// check refuses what no honest agent says, and makes names fit for a terminal.
func (p Phases) check() error {
	for i := range p {
		f := &p[i]
		if f.Begin < 0 || f.End < f.Begin || f.End > maxPhaseTime || f.Parent < 0 || f.Parent > i || len(f.Name) > maxPhaseName {
			return violation("phase %d makes no sense", i)
		}
		f.Name = clean(f.Name)
	}
	return nil
}
