package scratch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStale: a directory is stale once nobody holds it, and not before.
func TestStale(t *testing.T) {
	parent := Below(t.TempDir(), "test")
	first, stale, err := Open(parent)
	if err != nil || len(stale) != 0 || len(first.ID) != 32 {
		t.Fatalf("%+v, %d stale, %v", first, len(stale), err)
	}
	second, stale, err := Open(parent)
	if err != nil || len(stale) != 0 || second.ID == first.ID {
		t.Fatalf("beside one that lives: %+v, %d stale, %v", second, len(stale), err)
	}
	if err := os.WriteFile(filepath.Join(first.Path, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first.Close() // as the end of its process does
	third, stale, err := Open(parent)
	if err != nil || len(stale) != 1 || stale[0].ID != first.ID {
		t.Fatalf("after one that was killed: %d stale, %v", len(stale), err)
	}
	if _, again, err := Open(parent); err != nil || len(again) != 0 {
		t.Errorf("two commands clear up after the same: %d stale, %v", len(again), err)
	}
	for _, d := range []*Dir{stale[0], second, third} {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(d.Path); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", d.Path, err)
		}
	}
}

// TestPrivate: below what others can enter, nothing is believed to be ours.
func TestPrivate(t *testing.T) {
	root := t.TempDir()
	parent := Below(root, "test")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		if own, _, err := Open(parent); err == nil || !strings.Contains(err.Error(), "alone") {
			t.Errorf("%s: %+v, %v", what, own, err)
		}
	}
	if err := os.Chmod(parent, 0o777); err != nil {
		t.Fatal(err)
	}
	refused("writable by all")
	if err := os.Chmod(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(parent, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		refused("another user's")
	}
	if err := os.RemoveAll(parent); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root, parent); err != nil {
		t.Fatal(err)
	}
	refused("a link")
}
