package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRuntimeAddBelowRun wants a program that lies below /run known by any name.
func TestRuntimeAddBelowRun(t *testing.T) {
	entries, err := os.ReadDir("/run")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink("/run", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	tried := false
	for _, e := range entries {
		if e.Type()&os.ModeSymlink == 0 {
			tried = true
			if name := filepath.Join(dir, "link", e.Name()); !belowRun(name) {
				t.Errorf("%s: not found to be below /run", name)
			}
		}
	}
	if !tried {
		t.Skip("nothing is in /run")
	}
	for name, want := range map[string]bool{"/run/gone": true, "/usr/bin/env": false, dir: false, "/running": false} {
		if belowRun(name) != want {
			t.Errorf("%s: got %v", name, !want)
		}
	}
}
