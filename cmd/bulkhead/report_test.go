package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/report/page/pagetest"
)

// TestWritePageLeavesNothing has pages fail to be made, and to take their place.
func TestWritePageLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken") // after it was checked
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	bad := pagetest.Empty("guess")
	for name, tt := range map[string]struct {
		file string
		d    *report.Document
		want string
	}{
		"a document that is none":  {filepath.Join(dir, "report.html"), bad, "malformed report"},
		"a directory in its place": {taken, pagetest.Empty(report.Probe), "--html " + taken + ": "},
		"no directory any more":    {filepath.Join(dir, "gone", "report.html"), pagetest.Empty(report.Probe), "no such file or directory"},
	} {
		if err := writePage(tt.file, tt.d); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
