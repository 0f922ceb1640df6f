// Package workload holds the words that every other package shares: what a
// workload is asked to be (Spec), what it is now (Status), and how it ended
// (Exit). It imports the standard library only, so that the engine, the guest
// agent and the public API can all speak it.
package workload

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// ID names one workload for its whole life: 64 lower-case hexadecimal digits,
// 256 random bits.
type ID string

// NewID returns a fresh random ID.
func NewID() ID {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read aborts the program instead
	return ID(hex.EncodeToString(b[:]))
}

// ParseID checks that s is a whole ID.
func ParseID(s string) (ID, error) {
	if len(s) != 64 {
		return "", fmt.Errorf("workload ID %q: want 64 hexadecimal digits", s)
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("workload ID %q: want 64 hexadecimal digits", s)
		}
	}
	return ID(s), nil
}

// Short returns the twelve digits that listings show.
func (id ID) Short() string {
	if len(id) < 12 {
		return string(id)
	}
	return string(id[:12])
}

// Status is the state of a workload. The transitions are
//
//	created ──start──> running ──exit──> exited ──start──> running …
//	running ──pause──> paused ──unpause──> running
//	running ──exit──> restarting ──after a pause──> running, if the restart policy says so
//	restarting ──stop──> exited
//	created, running, paused, restarting ──supervisor dies──> exited (supervisor lost)
type Status string

// The states of a workload.
const (
	Created Status = "created" // prepared, its first process not started
	Running Status = "running"
	Paused  Status = "paused"
	Exited  Status = "exited"
	// Restarting is the time between two lives: nothing runs, and the supervisor
	// waits before it starts the first process again.
	Restarting Status = "restarting"
)

// Exit says how a workload, or one process executed in it, ended.
type Exit struct {
	// Code is the exit status as a shell reports it: 0 to 255, 128+n when
	// signal n ended the process.
	Code int `json:"code"`
	// Signal is the signal that ended the process, 0 if none did.
	Signal int `json:"signal,omitempty"`
	// OOMKilled is set when the kernel killed a process of the workload for
	// exceeding its memory limit.
	OOMKilled bool `json:"oomKilled,omitempty"`
	// At is when the end was seen.
	At time.Time `json:"at"`
	// Error tells why the workload ended without an exit status of its own,
	// such as "supervisor lost"; empty otherwise.
	Error string `json:"error,omitempty"`
}
