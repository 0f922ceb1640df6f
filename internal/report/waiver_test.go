package report

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const goodWaivers = `# finding       subject          until       owner  reason
privileges.root docker:db        2027-01-31  ops    the image drops root	itself

limits.cpu      "a file.json"    2027-02-28  mary   a batch job
`

func TestParseWaivers(t *testing.T) {
	got, err := ParseWaivers([]byte(goodWaivers))
	if err != nil || len(got) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if w := got[0]; w.line != 2 || w.id != "privileges.root" || w.subject != "docker:db" || w.waiver != (Waiver{"ops", "the image drops root itself", "2027-01-31"}) {
		t.Errorf("got %+v", w)
	}
	if w := got[1]; w.line != 4 || w.subject != "a file.json" || w.waiver.Reason != "a batch job" {
		t.Errorf("got %+v", w)
	}
	for _, tt := range []struct{ text, want string }{
		{"privileges.root docker:db 2027-01-31 ops", "an owner and a reason"},
		{"privileges.root", "an owner and a reason"},
		{"# fine\nPrivileges.Root db 2027-01-31 ops why", "line 2"},
		{"privileges.* db 2027-01-31 ops why", "the ID"},
		{"privileges.root db 31.1.2027 ops why", "no day"},
		{"privileges.root db 2027-02-30 ops why", "no day"},
		{"privileges.root db 0001-01-01 ops why", "no day"},
		{"privileges.root db never ops why", "no day"},
		{`privileges.root "db 2027-01-31 ops why`, "quote"},
		{`privileges.root "db"x 2027-01-31 ops why`, "quote"},
		{`privileges.root "d\nb" 2027-01-31 ops why`, "control"},
		{"privileges.root db 2027-01-31 ops why\x1b[2J", "control"},
		{"privileges.root db 2027-01-31 ops wh\xff", "UTF-8"},
		{"privileges.root db 2027-01-31 ops why\nprivileges.root db 2028-01-31 ops why", "lines 1 and 2 waive the same"},
		{"privileges.root db 2027-01-31 ops " + strings.Repeat("x", MaxText), "bytes"},
		{strings.Repeat("#", maxWaiversSize+1), "more than"},
		{many(MaxFindings + 1), "more than"},
	} {
		if _, err := ParseWaivers([]byte(tt.text)); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60q: got %v, want %q", tt.text, err, tt.want)
		}
	}
	if got, err := ParseWaivers([]byte(many(MaxFindings))); err != nil || len(got) != MaxFindings {
		t.Errorf("got %d, %v", len(got), err)
	}
}

// many are n waivers.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a.b s%d 2027-01-01 o r\n", i)
	}
	return b.String()
}

// audited has an open door of each severity, one unknown, and one shut.
func audited() *Document {
	finding := func(id string, v Verdict, s Severity) Finding {
		return Finding{ID: id, Door: "d", Verdict: v, Severity: s, Consequence: Depth, Expected: "e", Reason: map[Verdict]string{Unknown: "nobody said"}[v]}
	}
	return &Document{Format: Format, Kind: Audit, Reports: []Report{{Subject: Subject{Label: "db"}, Findings: []Finding{
		finding("a.critical", Leaked, Critical), finding("a.high", Leaked, High), finding("a.medium", Weaker, Medium), finding("a.low", Leaked, Low),
		finding("a.unknown", Unknown, Medium), finding("a.held", Held, Critical),
	}}}}
}

// TestThreshold: what is less severe is shown and does not decide the exit code.
func TestThreshold(t *testing.T) {
	for _, tt := range []struct {
		threshold Severity
		without   []string // shut
		want      int
	}{
		{"", nil, ExitLeak}, {Low, nil, ExitLeak}, {Critical, nil, ExitLeak},
		{Critical, []string{"a.critical"}, ExitHeld}, {High, []string{"a.critical"}, ExitLeak}, {High, []string{"a.critical", "a.high"}, ExitHeld},
		{Medium, []string{"a.critical", "a.high"}, ExitLeak}, {Medium, []string{"a.critical", "a.high", "a.medium"}, ExitInconclusive},
		{Low, []string{"a.critical", "a.high", "a.medium"}, ExitLeak}, {"", []string{"a.critical", "a.high", "a.medium", "a.low"}, ExitInconclusive},
	} {
		d := audited()
		d.Threshold = tt.threshold
		for _, id := range tt.without {
			d.Reports[0].finding(id).Verdict = Held
		}
		if got := d.ExitCode(); got != tt.want {
			t.Errorf("%s, without %v: got %d, want %d", tt.threshold, tt.without, got, tt.want)
		}
	}
	d := audited()
	d.Threshold = High
	d.Reports[0].finding("a.unknown").Severity = "" // nobody knows how severe
	d.Reports[0].finding("a.critical").Verdict, d.Reports[0].finding("a.high").Verdict = Held, Held
	if got := d.ExitCode(); got != ExitInconclusive {
		t.Errorf("unknown without a severity: got %d", got)
	}
	var out bytes.Buffer
	if err := d.TextNotes(&out); err != nil || !strings.Contains(out.String(), "Less than high, and without a say in the exit code: 2 open, 0 unknown.") {
		t.Errorf("%v: %s", err, &out)
	}
}

// TestWaive: what is accepted stays open and is shown with who and why; an expired
// waiver and one for nothing are told.
func TestWaive(t *testing.T) {
	list, err := ParseWaivers([]byte(`a.critical db 2027-01-31 ops known
a.high db 2026-12-01 ops for a day
a.medium db 2026-11-30 ops too long ago
a.unknown db 2027-01-31 ops cannot be known
a.held db 2027-01-31 ops shut
a.low other 2027-01-31 ops elsewhere
a.gone db 2027-01-31 ops there is none
`))
	if err != nil {
		t.Fatal(err)
	}
	d := audited()
	d.Waive(list, time.Date(2026, 12, 1, 23, 59, 59, 0, time.UTC))
	for id, want := range map[string]bool{"a.critical": true, "a.high": true, "a.medium": false, "a.low": false, "a.unknown": true, "a.held": false} {
		if f := d.Reports[0].finding(id); (f.Waived != nil) != want {
			t.Errorf("%s: waived %+v", id, f.Waived)
		}
	}
	if len(d.Notes) != 4 || !strings.Contains(d.Notes[0], "a.medium for db expired on 2026-11-30") || !strings.Contains(d.Notes[3], "a.gone for db is not used") {
		t.Errorf("notes %q", d.Notes)
	}
	if d.ExitCode() != ExitLeak {
		t.Errorf("exit code %d with what expired", d.ExitCode())
	}
	d.Threshold = High
	if d.ExitCode() != ExitHeld {
		t.Errorf("exit code %d with all that is left below the threshold", d.ExitCode())
	}
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(bytes.NewReader(b)); err != nil {
		t.Error(err)
	}
	var out bytes.Buffer
	if err := errors.Join(d.Reports[0].Text(&out, false), d.TextNotes(&out), d.Matrix(&out, false)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"; 3 of these waived.", "waived:    until 2027-01-31 by ops: known", "Note: the waiver of a.low for other is not used", "LEAKED, waived"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
	if got := strings.Count(out.String(), "leaked"); got < 3 {
		t.Errorf("a waived door is not shown as open:\n%s", &out)
	}
	d = audited()
	d.Waive(list, time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC))
	if d.Reports[0].finding("a.high").Waived != nil {
		t.Error("a waiver is in force after its last day")
	}
}

// FuzzWaivers: a file is refused or means something, and what it does to a document
// can be written and read again.
func FuzzWaivers(f *testing.F) {
	f.Add([]byte(goodWaivers))
	f.Add([]byte("a.low db 2030-01-01 o r\na.critical db 2000-01-01 o r"))
	f.Add([]byte("a.low \"\\u0064b\" 2030-01-01 o r"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseWaivers(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Error(err)
			}
			return
		}
		d := audited()
		d.Waive(list, time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
		text, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(bytes.NewReader(text)); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		waived := d.Reports[0].waived()
		if waived+len(d.Notes) != len(list) {
			t.Errorf("of %d waivers %d are in force and %d are told of", len(list), waived, len(d.Notes))
		}
	})
}
