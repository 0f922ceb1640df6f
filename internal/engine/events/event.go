// Package events keeps what happens to workloads, networks, volumes and images,
// without a daemon: whoever does something appends one line to a file below the
// run root, and whoever wants to know reads it and follows it.
//
//	engine, supervisors ──one write(2), O_APPEND──> events ──full──> events.1 ──> gone
//	                                                  │ read, and inotify(7)
//	readers, any number <─────────────────────────────┘
//
// A line is written whole or not at all. Writers share a lock on the file while
// they write, and the one that finds it full takes it alone to rename the file:
// when a reader sees the next file, nothing will be added to the one before.
// Nobody waits for a reader, and none of the locks is waited for: a reader that
// stalls for two whole files misses what was in between, and a writer that was
// stopped in the middle only makes the file a little longer. A full disk loses
// events and stops nobody.
package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// The types of what events are about. Workloads have Docker's word, which
// scripts filter by, whatever isolates them.
const (
	Workload = "container"
	Image    = "image"
	Network  = "network"
	Volume   = "volume"
	Tenant   = "tenant" // its machine
)

// Event is one thing that happened.
type Event struct {
	Time time.Time `json:"time"`
	Type string    `json:"type"`
	// Action is Docker's word, such as "start", "exec_die" or "exec_create: sh".
	Action string `json:"action"`
	// ID is what it happened to: a workload's ID, an image's digest, a name.
	ID         string            `json:"id"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// What a line may hold, in bytes. A write of so much to a regular file is not
// split.
const (
	maxLine  = 4096
	maxValue = 256
	maxID    = 512
)

// line encodes an event. Attributes are cut, and at last left out, so that it
// fits; the first ones in the order of names stay.
func (e Event) line() ([]byte, error) {
	e.ID, e.Action = cut(e.ID, maxID), cut(e.Action, maxID)
	all := e.Attributes
	e.Attributes = map[string]string{}
	for k, v := range all {
		e.Attributes[cut(k, maxValue)] = cut(v, maxValue)
	}
	for {
		b, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("record event: %w", err)
		}
		if len(b) < maxLine {
			return append(b, '\n'), nil
		}
		e.Attributes = fewer(e.Attributes)
	}
}

// fewer drops the longest attribute.
func fewer(all map[string]string) map[string]string {
	longest := ""
	for k, v := range all {
		if n := len(longest) + len(all[longest]); len(k)+len(v) > n || len(k)+len(v) == n && k > longest {
			longest = k
		}
	}
	delete(all, longest)
	return all
}

// cut shortens s to at most n bytes, between two characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// parse reads one line. What is not an event, such as one that a kill or a full
// disk cut off, is none.
func parse(line []byte) (Event, bool) {
	var e Event
	if len(line) > maxLine || json.Unmarshal(bytes.TrimSpace(line), &e) != nil {
		return e, false
	}
	return e, e.Type != "" && e.Action != "" && !e.Time.IsZero()
}
