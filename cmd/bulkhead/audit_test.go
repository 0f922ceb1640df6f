package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/auditing"
)

// TestAuditAgain: the command that a report offers to be copied names the file, and
// nothing that is written in it.
func TestAuditAgain(t *testing.T) {
	const text = `[{"Name": "/a; id", "HostConfig": {}}, {"Name": "/$(id)", "HostConfig": {}}]`
	dir := t.TempDir()
	file := filepath.Join(dir, "it's $(id).json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := auditing.File(file, "", "")
	if err != nil || len(found) != 2 {
		t.Fatalf("%d containers, %v", len(found), err)
	}
	for _, tt := range []struct {
		flags  []string
		target string
		want   string
	}{
		{nil, "open", "bulkhead audit open"},
		{nil, "docker:db", "bulkhead audit docker:db"},
		{[]string{"--json", "--severity", "high", "--html", "x"}, "-", "bulkhead audit -"},
		{[]string{"--type", "docker", "--info", "my info.json", "--verbose"}, "db.json", "bulkhead audit --info 'my info.json' --type docker db.json"},
		{nil, "-x.json", "bulkhead audit -- -x.json"},
		{nil, found[1].Target, `bulkhead audit '` + dir + `/it'\''s $(id).json'`},
	} {
		cmd := newApp().auditCommand()
		if err := cmd.ParseFlags(tt.flags); err != nil {
			t.Fatal(err)
		}
		if got := auditAgain(cmd, tt.target); got != tt.want {
			t.Errorf("%s: got %s, want %s", strings.Join(tt.flags, " "), got, tt.want)
		}
	}
}
