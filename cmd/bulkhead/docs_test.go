package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write docs/cli anew")

// TestDocs finds docs/cli as the help of the commands says.
func TestDocs(t *testing.T) {
	t.Setenv(rootVariable, "/elsewhere") // the pages must not depend on it
	dir := filepath.Join("..", "..", "docs", "cli")
	pages := docs(newApp(boundaries()...).command())
	if *update {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range pages {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, want := range pages {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if diff := cmp.Diff(string(got), want); err != nil || diff != "" {
			t.Errorf("%s is not current, run go generate ./cmd/bulkhead: %v\n%s", name, err, diff)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if pages[f.Name()] == "" {
			t.Errorf("%s describes a command that does not exist", f.Name())
		}
	}
}

// TestHelp finds, for every command, help with an example whose flags exist.
func TestHelp(t *testing.T) {
	walk(newApp(boundaries()...).command(), func(c *cobra.Command) {
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s: short, long or example is missing", c.CommandPath())
		}
		if c.HasParent() && (c.ValidArgsFunction == nil && c.ValidArgs == nil && !c.HasSubCommands()) && strings.Contains(c.Use, "WORKLOAD") {
			t.Errorf("%s: workloads are not completed", c.CommandPath())
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			if len([]rune(line)) > 100 {
				t.Errorf("%s: the example %q is too long", c.CommandPath(), line)
			}
			if !strings.Contains(line, "bulkhead ") && line != "" {
				t.Errorf("%s: the example %q does not use bulkhead", c.CommandPath(), line)
			}
			checkExample(t, c, line)
		}
	})
}

// checkExample parses the flags of an example that is a plain command line.
func checkExample(t *testing.T, c *cobra.Command, line string) {
	t.Helper()
	_, rest, found := strings.Cut(line, "bulkhead ")
	if !found || strings.ContainsAny(rest, "'\"$(>|") {
		return
	}
	cmd, args, err := newApp(boundaries()...).command().Find(strings.Fields(rest))
	if err != nil {
		t.Errorf("%s: example %q: %v", c.CommandPath(), line, err)
		return
	}
	if err := cmd.ParseFlags(args); err != nil {
		t.Errorf("%s: example %q: %v", c.CommandPath(), line, err)
	}
	if cmd.Args != nil {
		if err := cmd.Args(cmd, cmd.Flags().Args()); err != nil {
			t.Errorf("%s: example %q: %v", c.CommandPath(), line, err)
		}
	}
}

// walk calls f for root and every command below it.
func walk(root *cobra.Command, f func(*cobra.Command)) {
	f(root)
	for _, c := range root.Commands() {
		walk(c, f)
	}
}
