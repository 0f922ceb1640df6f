package audit

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

var update = flag.Bool("update", false, "write the tables of docs/audit.md anew")

// TestDocs finds the tables of docs/audit.md as the rules, the advisories and the
// settings say.
func TestDocs(t *testing.T) {
	const file = "../../docs/audit.md"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := string(b)
	for name, table := range map[string]string{"rules": ruleTable(), "advisories": advisoryTable(t), "settings": settingTable()} {
		begin := "<!-- " + name + ": written by go generate ./internal/audit -->\n"
		before, after, ok := strings.Cut(want, begin)
		_, after, end := strings.Cut(after, "<!-- end -->")
		if !ok || !end {
			t.Fatalf("%s has no place for %s", file, name)
		}
		want = before + begin + table + "<!-- end -->" + after
	}
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(b), want); diff != "" {
		t.Errorf("%s is not current, run go generate ./internal/audit:\n%s", file, diff)
	}
}

func ruleTable() string {
	var b strings.Builder
	b.WriteString("| rule | open when not | severity | | CIS | PSS |\n|---|---|---|---|---|---|\n")
	for _, r := range rules {
		var marks []string
		if r.reach == host {
			marks = append(marks, "host")
		}
		if r.mapped {
			marks = append(marks, "mapped")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", r.id, r.expected, r.severity, strings.Join(marks, ", "), r.cis, r.pss)
	}
	return b.String()
}

func advisoryTable(t *testing.T) string {
	t.Helper()
	known, err := LoadAdvisories()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| product | advisory | severity | fixed in | what it enables |\n|---|---|---|---|---|\n")
	for _, e := range known.Entries {
		fmt.Fprintf(&b, "| %s | [%s](%s) | %s | %s | %s |\n", e.Product, e.ID, e.Source, e.Severity, strings.Join(e.Fixed, ", "), e.Enables)
	}
	return b.String()
}

func settingTable() string {
	var b strings.Builder
	b.WriteString("| setting | open when not | severity |\n|---|---|---|\n")
	for _, s := range settings {
		fmt.Fprintf(&b, "| `host.%s` | %s | %s |\n", s.id, s.expected, s.severity)
	}
	return b.String()
}

// TestRules holds the table to what a report needs of it.
func TestRules(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules {
		if report.CheckID(r.id) != nil || seen[r.id] {
			t.Errorf("ID %q", r.id)
		}
		seen[r.id] = true
		if r.door == "" || r.severity == "" || r.consequence == "" || r.expected == "" || r.breaks == "" || r.check == nil {
			t.Errorf("%s is incomplete", r.id)
		}
		if r.enables == "" && r.id != "capabilities.dangerous" { // each capability has its own
			t.Errorf("%s enables nothing", r.id)
		}
		if len(r.refs()) == 0 {
			t.Errorf("%s has no reference", r.id)
		}
		for _, k := range Kinds {
			if k == OCI && (r.id == "privileges.privileged" || r.id == "network.ports") {
				continue // a config.json has neither
			}
			if r.fix.of(k) == "" {
				t.Errorf("%s has no fix for %s", r.id, k)
			}
		}
	}
}
