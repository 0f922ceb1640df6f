package main

import (
	"strings"
	"testing"
)

// TestLongID: what can be created can be deleted.
func TestLongID(t *testing.T) {
	h := newHost(t)
	h.write(nil, "true")
	id := "lifecycle-" + strings.Repeat("a", 255-len("lifecycle-"))
	h.must("run", "--bundle", h.bundle, id)
	h.must("create", "--bundle", h.bundle, id)
	h.must("delete", "--force", id)
}
