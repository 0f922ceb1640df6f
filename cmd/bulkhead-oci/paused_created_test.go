package main

import (
	"strings"
	"testing"
)

// TestPauseCreated: a container that is paused before its start says so, is not
// started meanwhile, and can be resumed and started.
func TestPauseCreated(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "1000")
	const id = "lifecycle-pause-created"
	h.must("create", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	h.must("pause", id)
	if st, _ := h.status(id); st != "paused" {
		t.Fatalf("paused: %s", st)
	}
	if code, _, errs := h.call("start", id); code == 0 || !strings.Contains(errs, "paused, not created") {
		t.Errorf("start while paused: %d, %q", code, errs)
	}
	h.must("resume", id)
	if st, _ := h.status(id); st != "created" {
		t.Errorf("resumed: %s", st)
	}
	h.must("start", id)
	if st, _ := h.status(id); st != "running" {
		t.Errorf("started: %s", st)
	}
}

// TestDeletePausedCreated: a container that has run nothing yet is deleted as it is,
// frozen or not.
func TestDeletePausedCreated(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "1000")
	const id = "lifecycle-delete-paused-created"
	h.must("create", "--bundle", h.bundle, id)
	h.must("pause", id)
	h.must("delete", id)
	if code, _, _ := h.call("state", id); code == 0 {
		t.Error("it is still there")
	}
}
