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
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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
	// Labels become attributes, too, as far as there is room beside the others: they
	// may come from an image, in any number. An event that is read has none.
	Labels map[string]string `json:"-"`
}

// What a line may hold, in bytes. A write of so much to a regular file is not
// split.
const (
	maxLine  = 4096
	maxValue = 256
	maxID    = 512
)

// line encodes an event. Attributes are cut, and the longest of them left out, so
// that it fits; then those of the labels.
func (e Event) line() ([]byte, error) {
	e.ID, e.Action = cut(e.ID, maxID), cut(e.Action, maxID)
	all := []map[string]string{e.Attributes, e.Labels}
	e.Attributes = nil
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("record event: %w", err)
	}
	room := maxLine - 1 - len(b) - len(`,"attributes":{}`)
	if room < 0 {
		return nil, fmt.Errorf("record event: %d bytes are too many for a line", len(b))
	}
	e.Attributes = map[string]string{}
	for _, some := range all {
		if room, err = addShort(e.Attributes, some, room); err != nil {
			return nil, fmt.Errorf("record event: %w", err)
		}
	}
	if b, err = json.Marshal(e); err != nil {
		return nil, fmt.Errorf("record event: %w", err)
	}
	return append(b, '\n'), nil
}

// addShort adds the shortest attributes of some to to, as many as fit into room bytes
// of JSON, and returns how many bytes are left. Of the same name the first counts.
func addShort(to, some map[string]string, room int) (int, error) {
	length := func(k string) int { return min(len(k), maxValue) + min(len(some[k]), maxValue) }
	names := slices.SortedFunc(maps.Keys(some), func(a, b string) int {
		return cmp.Or(cmp.Compare(length(a), length(b)), cmp.Compare(a, b))
	})
	for _, name := range names {
		k, v := cut(name, maxValue), cut(some[name], maxValue)
		if to[k] != "" {
			continue
		}
		one, err := json.Marshal(map[string]string{k: v}) // a comma is as long as two brackets, less one
		if err != nil {
			return 0, err
		}
		if len(one)-1 > room {
			break
		}
		to[k], room = v, room-(len(one)-1)
	}
	return room, nil
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
