package advice

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestPrint(t *testing.T) {
	cause := &fs.PathError{Op: "open", Path: "/x\x1b[2J", Err: errors.New("no")}
	err := fmt.Errorf("run: %w", Wrap(cause, "no such file /x\x1b[2J", "make\nit"))
	for _, tt := range []struct {
		name  string
		debug bool
		want  string
	}{
		{"short", false, "bulkhead: run: no such file /x\\x1b[2J\n  make\\nit\n"},
		{"debug", true, "bulkhead: run: no such file /x\\x1b[2J\n  make\\nit\n" +
			"  caused by: no such file /x\\x1b[2J (*advice.Error)\n" +
			"    caused by: open /x\\x1b[2J: no (*fs.PathError)\n" +
			"      caused by: no (*errors.errorString)\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			Print(&b, "bulkhead", err, tt.debug)
			if b.String() != tt.want {
				t.Errorf("got:\n%swant:\n%s", b.String(), tt.want)
			}
		})
	}
}

func TestPrintJoined(t *testing.T) {
	var b strings.Builder
	Print(&b, "bulkhead", errors.Join(errors.New("one"), errors.New("two")), true)
	want := "bulkhead: one\\ntwo\n  caused by: one (*errors.errorString)\n  caused by: two (*errors.errorString)\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestPrintLines(t *testing.T) {
	var b strings.Builder
	err := errors.New("agent: no answer\n  the console:\n    one\x1b[2J\n    two\nbulkhead: forged")
	Print(&b, "bulkhead", Wrap(err, err.Error(), "look"), false)
	want := "bulkhead: agent: no answer\n  look\n  the console:\n    one\\x1b[2J\n    two\\nbulkhead: forged\n"
	if b.String() != want {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
}

func TestFixIsFoundThroughWrapping(t *testing.T) {
	err := fmt.Errorf("a: %w", fmt.Errorf("b: %w", New("c", "do d")))
	if got := Fix(err); got != "do d" {
		t.Errorf("Fix = %q, want %q", got, "do d")
	}
	if got := Fix(errors.New("plain")); got != "" {
		t.Errorf("Fix of a plain error = %q, want none", got)
	}
}

func TestFixOfJoined(t *testing.T) {
	joined := errors.Join(errors.New("plain"), fmt.Errorf("a: %w", New("b", "do b")), New("c", "do c"))
	if got := Fix(fmt.Errorf("x: %w", joined)); got != "do b" {
		t.Errorf("Fix = %q, want %q", got, "do b")
	}
}
