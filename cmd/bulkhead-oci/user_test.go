package main

import (
	"strings"
	"testing"
)

// TestOrdinaryUser: it is said at once, not by a system call that fails half-way.
func TestOrdinaryUser(t *testing.T) {
	if err := checkUser(1000); err == nil || !strings.Contains(err.Error(), "needs root") {
		t.Errorf("user 1000: %v", err)
	}
	if err := checkUser(0); err != nil {
		t.Errorf("root: %v", err)
	}
}
