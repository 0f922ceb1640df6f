// Package advice holds the errors that a person sees: one sentence that says
// what is wrong, then what to do about it. The technical causes stay attached
// for errors.Is and for --debug, and are otherwise not shown.
package advice

import (
	"fmt"
	"io"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
)

// Error is one sentence for a person and the way out of it.
type Error struct {
	Summary string // what is wrong, lower case, no full stop
	Fix     string // what to do; empty when there is nothing to say
	Cause   error  // the technical reason, may be nil
}

// Error returns the summary alone, so that an Error wrapped by another error
// still reads as one sentence.
func (e *Error) Error() string { return e.Summary }

// Unwrap returns the technical cause.
func (e *Error) Unwrap() error { return e.Cause }

// New returns an error with a summary and a fix.
func New(summary, fix string) error { return &Error{Summary: summary, Fix: fix} }

// Wrap returns an error with a summary and a fix that keeps cause for --debug.
func Wrap(cause error, summary, fix string) error {
	return &Error{Summary: summary, Fix: fix, Cause: cause}
}

// Fix returns the first fix found in what err wraps, be it one error or several, or "".
func Fix(err error) string {
	if e, ok := err.(*Error); ok && e.Fix != "" { //nolint:errorlint // each link is looked at
		return e.Fix
	}
	for _, cause := range unwrap(err) {
		if fix := Fix(cause); fix != "" {
			return fix
		}
	}
	return ""
}

// Print writes err to w as "program: sentence", then an indented fix. Lines of
// err that are indented after the first, such as the end of a guest's console,
// are shown as lines, still indented: they cannot pass for ours. With debug
// every nested cause follows on a line of its own. Whatever err quotes from
// outside is made safe for a terminal.
func Print(w io.Writer, program string, err error, debug bool) {
	var b strings.Builder
	sentence, shown, _ := strings.Cut(err.Error(), "\n"+indent)
	fmt.Fprintf(&b, "%s: %s\n", program, safetext.Line(sentence))
	if fix := Fix(err); fix != "" {
		fmt.Fprintf(&b, "%s%s\n", indent, safetext.Line(fix))
	}
	if shown != "" {
		for line := range strings.SplitSeq(shown, "\n"+indent) {
			fmt.Fprintf(&b, "%s%s\n", indent, safetext.Line(line))
		}
	}
	if debug {
		printCauses(&b, err, 1)
	}
	io.WriteString(w, b.String())
}

const indent = "  "

// printCauses lists what err wraps, each with its Go type, indented by depth.
func printCauses(b *strings.Builder, err error, depth int) {
	for _, cause := range unwrap(err) {
		fmt.Fprintf(b, "%scaused by: %s (%T)\n", strings.Repeat("  ", depth), safetext.Line(cause.Error()), cause)
		printCauses(b, cause, depth+1)
	}
}

// unwrap returns what err wraps, be it one error or several.
func unwrap(err error) []error {
	switch e := err.(type) { //nolint:errorlint // one link at a time, on purpose
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return []error{inner}
		}
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	}
	return nil
}
