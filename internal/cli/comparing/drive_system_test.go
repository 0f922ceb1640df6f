package comparing

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/scratch"
)

// TestSystemFirstOutput: a program in a system has put something out when it has, as in
// every other way, and not at its end.
func TestSystemFirstOutput(t *testing.T) {
	newEngine(t, "bulkhead")
	s := &system{oursDriver: oursDriver{tool: tool{program: []string{"bulkhead"}, id: "0123"}}}
	// A sleep takes at least its time.
	first, end, err := s.start(t.Context(), []string{"sh", "-c", "echo hello; sleep 1"})
	if err != nil || first <= 0 || end < first+500*time.Millisecond {
		t.Errorf("output after %v, end after %v: %v", first, end, err)
	}
	first, end, err = s.start(t.Context(), []string{"true"})
	if !errors.Is(err, errSilent) || end < first {
		t.Errorf("of a silent program: output after %v, end after %v: %v", first, end, err)
	}
}

// TestSystemOfTheSameImage: a system may be made of the image that is compared, and
// nothing of either is left.
func TestSystemOfTheSameImage(t *testing.T) {
	state := newEngine(t, "bulkhead")
	o := withImage(t)
	o.Bulkhead, o.Only, o.System = []string{"bulkhead"}, []string{"system"}, o.Image
	own, _, err := scratch.Open(scratch.Below(t.TempDir(), "compare"))
	if err != nil {
		t.Fatal(err)
	}
	c := &comparison{Options: o, id: own.ID, dir: own.Path, host: localHost()}
	if c.ways, err = c.choose(); err != nil {
		t.Fatal(err)
	}
	if c.made, err = c.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	const other = "debian:12\n"
	if err := os.WriteFile(filepath.Join(state, "images"), []byte(c.made.ours+"\n"+other), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.setUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.end(t.Context(), own); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(state, "images")); err != nil || string(b) != other {
		t.Errorf("images are left: %q, %v", b, err)
	}
	if _, err := os.Stat(own.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}
