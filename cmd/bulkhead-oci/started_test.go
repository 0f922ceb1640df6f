package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStartKilled: a start that was killed after it let the program run leaves a
// container that runs and says so.
func TestStartKilled(t *testing.T) {
	h := newHost(t)
	h.write(nil, "sleep", "1000")
	const id = "lifecycle-start-killed"
	h.must("create", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	if err := os.WriteFile(filepath.Join(h.root, id, "start"), []byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	h.waitFor(id, "running")
	if code, _, errs := h.call("start", id); code == 0 || !strings.Contains(errs, "running, not created") {
		t.Errorf("a second start: %d, %q", code, errs)
	}
}
