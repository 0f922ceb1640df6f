package leakcheck

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFinds leaks one thing of each kind and asks the guard to name it.
func TestFinds(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		kind string
		leak func(t *testing.T) (undo func())
	}{
		{"descriptor of " + dir + "/f", func(t *testing.T) func() {
			f, err := os.Create(filepath.Join(dir, "f"))
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close(); os.Remove(f.Name()) }
		}},
		{"file " + dir + "/g", func(t *testing.T) func() {
			p := filepath.Join(dir, "g")
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return func() { os.Remove(p) }
		}},
		{"process", func(t *testing.T) func() {
			// An orphan: the shell that started it has ended.
			out, err := exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!").Output()
			if err != nil {
				t.Fatal(err)
			}
			return func() { exec.Command("kill", strings.TrimSpace(string(out))).Run() }
		}},
	}
	subreap()
	o := Options{Paths: []string{dir}, Files: true, Wait: 50 * time.Millisecond}
	for _, tt := range tests {
		t.Run(tt.kind, func(t *testing.T) {
			before, err := Take(o)
			if err != nil {
				t.Fatal(err)
			}
			undo := tt.leak(t)
			if got := strings.Join(before.Wait(o), "\n"); !strings.Contains(got, tt.kind) {
				t.Errorf("got %q, want it to name %q", got, tt.kind)
			}
			undo()
			if got := before.Wait(Options{Paths: o.Paths, Files: true}); len(got) > 0 {
				t.Errorf("after the leak is gone, got %q", got)
			}
		})
	}
}

// TestOwnDescriptors: what the guard opens to find orphans is not taken for a
// leak.
func TestOwnDescriptors(t *testing.T) {
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for since := map[int]time.Time{}; ; {
			select {
			case <-done:
				return
			default:
				since = reap(since)
			}
		}
	}()
	defer func() {
		close(done)
		<-ended
	}()
	for range 500 {
		s := Snapshot{}
		if err := s.descriptors(Options{}); err != nil {
			t.Fatal(err)
		}
		for k := range s {
			if strings.Contains(k, "/task") {
				t.Fatalf("taken for a leak: %s", k)
			}
		}
	}
}
