package bulkhead_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// testCommand is a command in the documents that runs tests by name.
	testCommand = regexp.MustCompile("`go test -run '?([A-Za-z0-9_\\\\|]+)'? (\\.[a-z0-9/_-]*)`")
	// makeVerb is a call of make in the documents.
	makeVerb = regexp.MustCompile("`make ([a-z-]+)")
	// link is a link to a file of the project.
	link = regexp.MustCompile(`\]\(([A-Za-z0-9_./-]+)(?:#[^)]*)?\)`)
)

// TestDocuments holds the documents to what exists: the tests that are said to
// check a promise, the verbs of the Makefile, and the files that are linked.
func TestDocuments(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range documents(t) {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testCommand.FindAllStringSubmatch(string(text), -1) {
			for name := range strings.SplitSeq(strings.ReplaceAll(m[1], `\|`, "|"), "|") {
				if !hasTest(t, m[2], name) {
					t.Errorf("%s names %s of %s, which does not exist", doc, name, m[2])
				}
			}
		}
		for _, m := range makeVerb.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s names make %s, which does not exist", doc, m[1])
			}
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
			}
		}
	}
}

// documents lists the Markdown files that are part of the project.
func documents(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "ls-files", "-z", "--", "*.md").Output()
	if err != nil {
		t.Fatal("git ls-files:", err)
	}
	docs := strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	if len(docs) < 2 {
		t.Fatalf("found documents %q only", docs)
	}
	return docs
}

// hasTest reports whether a package has a test or fuzz target of this name.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
