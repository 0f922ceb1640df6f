package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/audit"
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

// TestUnseenContainers: an engine that is there and does not answer is unknown, and one
// that is not installed is not.
func TestUnseenContainers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte("#!/bin/sh\necho no daemon >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	j := &auditJob{app: newApp()}
	j.app.err = io.Discard
	if err := j.containers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(j.unseen) != 1 || j.unseen[0].Kind != audit.Docker || !strings.Contains(j.unseen[0].Why, "no daemon") || len(j.untested) != 1 {
		t.Errorf("unseen %+v, untested %+v", j.unseen, j.untested)
	}
}
