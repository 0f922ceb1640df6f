// Command skips reads the output of go test -json on its standard input,
// prints what go test without -json would have printed, and fails if a test
// was skipped that this machine could have run.
//
// A skipped test is no evidence, and nobody sees it in a green run. So every
// skip must be named in a list, with the condition of the machine that excuses
// it; on a machine where the condition does not hold, the skip is a failure.
//
//	go test -json ./... | skips tests/skips/allowed
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go test -json ./... | skips ALLOWED")
		os.Exit(2)
	}
	ok, err := run(os.Args[1], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run reports whether all tests passed and every skip is excused.
func run(allowedPath string, in io.Reader, out io.Writer) (bool, error) {
	f, err := os.Open(allowedPath)
	if err != nil {
		return false, err
	}
	defer f.Close()
	rules, err := parseRules(f)
	if err != nil {
		return false, fmt.Errorf("%s: %w", allowedPath, err)
	}
	w := bufio.NewWriter(out)
	t := newTally(w, rules, machine())
	if err := t.read(in); err != nil {
		return false, err
	}
	t.finish()
	return t.ok(), w.Flush()
}

// event is one line of go test -json; see "go doc test2json".
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Output      string
	FailedBuild string
}

// tally follows a test run.
type tally struct {
	w          *bufio.Writer
	rules      []rule
	conditions map[string]bool

	output  map[string][]string // test to what it printed
	tests   int
	failed  bool
	excused []string
	bad     []string
	lines   []string // the closing line of each package
}

func newTally(w *bufio.Writer, rules []rule, conditions map[string]bool) *tally {
	return &tally{w: w, rules: rules, conditions: conditions, output: map[string][]string{}}
}

func (t *tally) read(in io.Reader) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			t.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the test run: %w", err)
		}
	}
}

// line takes one line. What is not JSON came from go itself (a build error,
// say) and is passed on.
func (t *tally) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		t.w.Write(line)
		return
	}
	switch e.Action {
	case "build-output":
		t.w.WriteString(e.Output)
	case "build-fail":
		t.failed = true
	case "output":
		t.collect(e)
	case "pass", "fail", "skip":
		t.end(e)
	}
}

func (t *tally) key(e event) string { return e.Package + "\x00" + e.Test }

func (t *tally) collect(e event) {
	if e.Test == "" && closing(e.Output) {
		t.lines = append(t.lines, e.Output)
		return
	}
	t.output[t.key(e)] = append(t.output[t.key(e)], e.Output)
}

// closing reports whether a package's line is the one that tells its result.
func closing(s string) bool {
	for _, p := range []string{"ok  \t", "FAIL\t", "?   \t", "---\t", "\t"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

func (t *tally) end(e event) {
	output := t.output[t.key(e)]
	delete(t.output, t.key(e))
	if e.Action == "fail" {
		t.failed = true
		for _, l := range output {
			t.w.WriteString(l)
		}
		t.w.Flush() // a person may be watching
	}
	if e.Test == "" {
		return
	}
	t.tests++
	if e.Action != "skip" {
		return
	}
	why := reason(output)
	what := fmt.Sprintf("%s %s: %s", e.Package, e.Test, why)
	if r, ok := match(t.rules, t.conditions, e.Package, e.Test); ok {
		t.excused = append(t.excused, what+" ("+r.condition+")")
	} else {
		t.bad = append(t.bad, what)
	}
}

// reason is what the test said before it skipped, without the file and line.
func reason(output []string) string {
	for i := len(output) - 1; i >= 0; i-- {
		s := strings.TrimSpace(output[i])
		if s == "" || strings.HasPrefix(s, "---") || strings.HasPrefix(s, "===") {
			continue
		}
		if _, after, ok := strings.Cut(s, ".go:"); ok {
			if _, text, ok := strings.Cut(after, ": "); ok {
				return text
			}
		}
		return s
	}
	return "no reason given"
}

// finish prints the skips, and then the packages' lines, so that the output
// ends as go test's does.
func (t *tally) finish() {
	sort.Strings(t.excused)
	for _, s := range t.excused {
		fmt.Fprintln(t.w, "skipped:", s)
	}
	for _, s := range t.bad {
		fmt.Fprintln(t.w, "SKIPPED WITHOUT EXCUSE:", s)
	}
	if len(t.bad) > 0 {
		fmt.Fprintln(t.w, "No rule of tests/skips/allowed holds on this machine for the tests above: make them run, or add a rule with its condition.")
	}
	fmt.Fprintf(t.w, "%d tests ended, %d of them skipped\n", t.tests, len(t.excused)+len(t.bad))
	for _, l := range t.lines {
		if strings.HasPrefix(l, "ok") || strings.HasPrefix(l, "FAIL") {
			t.w.WriteString(l)
		}
	}
	if !t.ok() {
		fmt.Fprintln(t.w, "FAIL")
	}
}

// ok is false also when nothing ran: a run of no tests proves nothing.
func (t *tally) ok() bool { return !t.failed && len(t.bad) == 0 && t.tests > 0 }
