package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// count is the number of tests, subtests included.
type count struct{ passed, failed, skipped int }

func (c count) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

// event is a line of test2json's output; see "go doc test2json".
type event struct {
	Action string
	Test   string
	Output string
}

// packageRun judges one package's output, with test2json's help.
type packageRun struct {
	name    string
	status  int // of the test binary; -1 while it runs
	left    []string
	leaks   bool // what was left is a failure
	excuses excuses
	verbose bool

	started time.Time
	input   io.WriteCloser
	command *exec.Cmd
	events  chan result
}

// result is what test2json made of a package's output.
type result struct {
	count
	report strings.Builder // failures and skips with their output
	skips  []string        // names of the skipped tests
	err    error
}

func startPackage(name string, verbose bool, out io.Writer) (*packageRun, error) {
	p := &packageRun{name: name, status: -1, verbose: verbose, started: time.Now(), events: make(chan result, 1)}
	p.command = exec.Command("go", "tool", "test2json", "-p", name)
	p.command.Stderr = os.Stderr
	var err error
	if p.input, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("go tool test2json: %w", err)
	}
	if !verbose {
		out = io.Discard
	}
	go func() { p.events <- judge(stdout, out) }()
	return p, nil
}

// write takes a line of the test binary's output. A failing test2json shows in
// finish.
func (p *packageRun) write(line string) { _, _ = io.WriteString(p.input, line) }

// judge reads events to their end; live gets all output as it comes.
func judge(r io.Reader, live io.Writer) (res result) {
	held := map[string]*strings.Builder{} // output of the tests that still run
	decoder := json.NewDecoder(r)
	for {
		var e event
		if err := decoder.Decode(&e); err != nil {
			if err != io.EOF {
				res.err = err
			}
			break
		}
		text := held[e.Test]
		if text == nil {
			text = new(strings.Builder)
			held[e.Test] = text
		}
		switch e.Action {
		case "output":
			io.WriteString(live, e.Output)
			if !strings.HasPrefix(e.Output, "=== ") {
				text.WriteString(e.Output)
			}
			continue
		case "pass", "skip", "fail":
		default:
			continue
		}
		if e.Test != "" {
			switch e.Action {
			case "pass":
				res.passed++
			case "skip":
				res.skipped++
				res.skips = append(res.skips, e.Test)
				res.report.WriteString(text.String())
			case "fail":
				res.failed++
				res.report.WriteString(text.String())
			}
			delete(held, e.Test)
		}
	}
	// A panic or a time-out leaves tests without a verdict.
	for name, text := range held {
		if name != "" {
			res.failed++
			fmt.Fprintf(&res.report, "--- no verdict: %s\n%s", name, text)
		}
	}
	if text := held[""]; text != nil && res.failed > 0 {
		res.report.WriteString(text.String())
	}
	return res
}

// finish prints the package's verdict and adds to the total. A package that ends
// with an error without a failed test counts as a failed test.
func (p *packageRun) finish(out io.Writer, total *count) {
	p.input.Close()
	res := <-p.events
	if err := p.command.Wait(); err != nil && res.err == nil {
		res.err = err
	}
	var reasons []string
	if res.err != nil {
		reasons = append(reasons, "test2json: "+res.err.Error())
	}
	switch {
	case p.status == -1:
		reasons = append(reasons, "did not end")
	case p.status != 0 && res.failed == 0:
		reasons = append(reasons, fmt.Sprintf("exit status %d", p.status))
	}
	for _, test := range res.skips {
		if !p.excuses.cover(p.name, test) {
			reasons = append(reasons, "skip that tests/guest/skips does not allow: "+test)
		}
	}
	if p.leaks {
		for _, text := range p.left {
			reasons = append(reasons, "left behind: "+text)
		}
	}
	if len(reasons) > 0 {
		res.failed++
	}
	verdict := "ok  "
	if res.failed > 0 {
		verdict = "FAIL"
	}
	fmt.Fprintf(out, "%s  %s  %.1fs  %s\n", verdict, p.name, time.Since(p.started).Seconds(), res.count)
	for line := range strings.Lines(res.report.String()) {
		io.WriteString(out, "    "+line)
	}
	for _, reason := range reasons {
		fmt.Fprintf(out, "    %s\n", reason)
	}
	total.passed += res.passed
	total.failed += res.failed
	total.skipped += res.skipped
}
