package report

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// example is a document with every field set.
func example() *Document {
	return &Document{
		Format: Format, Kind: Probe, Tool: "bulkhead test", Time: time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC),
		Machine: []Fact{{"processors", "2"}}, Threshold: Medium, Notes: []string{"a waiver is not used"},
		Reports: []Report{{
			Subject: Subject{
				Label: "container", Boundary: "container", Engine: "bulkhead", Image: "alpine", Command: "--pid host",
				Kernel: "6.18.44", HostKernel: "6.18.44", Note: "a note",
			},
			Shared: []string{"the kernel, Linux 6.18.44"},
			Findings: []Finding{{
				ID: "namespaces.pid", Door: "the host's processes", Verdict: Leaked, Severity: High, Consequence: Reads,
				Declared: "open: --pid host", Expected: "a pid namespace of its own", Observed: "the initial one", Reason: "",
				Evidence: []Evidence{{"readlink(/proc/self/ns/pid)", "", "pid:[4026531836]"}, {"openat(<x> & y)", "EACCES", ""}},
				Enables:  "reading command lines", Fix: "leave out --pid host", Breaks: "debuggers", Recheck: "bulkhead probe alpine",
				References: []string{"pid_namespaces(7)"}, Waived: &Waiver{"ops", "a debugger", "2027-01-31"},
			}, {ID: "files.mask", Door: "x", Verdict: Unknown, Expected: "y", Reason: "killed"}},
			Measures: []Measure{
				{ID: "start.output", Name: "to first output", Unit: Seconds, Better: Less, Samples: []float64{0.03, 0.04}, Note: "warm"},
				{ID: "kernel.name", Name: "kernel", Text: "Linux 6.18.44"},
				{ID: "density.more", Name: "room for", Unit: Number, Better: More, Samples: []float64{812}, Estimated: true},
				{ID: "network.rate", Name: "network", Unit: BytesPerSecond, Better: More, Reason: "no network"},
				{ID: "compat.features", Name: "features", Unit: Number, Samples: []float64{1}, Parts: []Fact{{"io_uring", "EPERM"}}},
			},
			Untested: []Untested{{"egress", "no target was named"}},
		}},
	}
}

func TestRoundTrip(t *testing.T) {
	d := example()
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte("(<x> & y)")) {
		t.Errorf("text is escaped: %s", b)
	}
	got, err := Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, got); diff != "" {
		t.Error(diff)
	}
}

// TestDecodeRefuses changes the text of a good document.
func TestDecodeRefuses(t *testing.T) {
	b, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	many := strings.Repeat(`{"what":"a","why":"b"},`, MaxList)
	for _, tt := range []struct{ name, old, new string }{
		{"another format", `"format": 2`, `"format": 1`},
		{"another kind", `"kind": "probe"`, `"kind": "guess"`},
		{"an unknown field", `"door": "x"`, `"door": "x", "more": 1`},
		{"a field twice", `"door": "x"`, `"door": "y", "door": "x"`},
		{"a name in another case", `"door": "x"`, `"Door": "x"`},
		{"an unknown verdict", `"unknown"`, `"fine"`},
		{"unknown for no reason", `,
          "reason": "killed"`, ``},
		{"an unknown threshold", `"threshold": "medium"`, `"threshold": "some"`},
		{"a waiver for no day", `"until": "2027-01-31"`, `"until": "2027-01-32"`},
		{"a waiver of nobody", `"owner": "ops"`, `"owner": ""`},
		{"a waiver of what is shut", `"verdict": "leaked"`, `"verdict": "held"`},
		{"an unknown severity", `"high"`, `"dire"`},
		{"an unknown consequence", string(Reads), `reads minds`},
		{"a control character", `a note`, `a\u001b[2J`},
		{"a newline", `a note`, `a\nnote`},
		{"half a rune", `a note`, "a \xc3"},
		{"a lone surrogate", `a note`, `a \ud800`},
		{"a long text", `a note`, strings.Repeat("n", MaxText+1)},
		{"an ID that is none", `files.mask`, `files..mask`},
		{"an ID with a slash", `files.mask`, `files/mask`},
		{"an unknown unit", `"unit": "s"`, `"unit": "ms"`},
		{"an unknown direction", `"better": "less"`, `"better": "fewer"`},
		{"one measure twice", `kernel.name`, `start.output`},
		{"a measure without a value or a reason", `"reason": "no network"`, `"note": "no network"`},
		{"a value and a reason", `"note": "warm"`, `"reason": "warm"`},
		{"a text with a unit", `"text": "Linux 6.18.44"`, `"unit": "s", "text": "Linux 6.18.44"`},
		{"numbers without a unit", `"unit": "1",
          "samples"`, `"samples"`},
		{"a negative sample", `0.03`, `-1`},
		{"a sample that is no number", `0.03`, `"NaN"`},
		{"one ID twice", `files.mask`, `namespaces.pid`},
		{"a long list", `"untested": [`, `"untested": [` + many},
		{"a number for text", `"x"`, `1`},
		{"more behind the end", "\n}\n", "\n}\n{}"},
		{"nothing", good, ``},
		{"null", good, `null`},
	} {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("%s: the document has no %q", tt.name, tt.old)
		}
		_, err := Decode(strings.NewReader(strings.Replace(good, tt.old, tt.new, 1)))
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", tt.name, err)
		}
	}
	if _, err := Decode(strings.NewReader(strings.Repeat(" ", MaxSize) + good)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too large: got %v", err)
	}
}

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		verdicts []Verdict
		want     int
	}{
		{nil, ExitHeld},
		{[]Verdict{Held, NotApplicable}, ExitHeld},
		{[]Verdict{Held, Unknown}, ExitInconclusive},
		{[]Verdict{Unknown, Leaked}, ExitLeak},
		{[]Verdict{Weaker, Held}, ExitLeak},
	} {
		d := &Document{Reports: make([]Report, 2)}
		for _, v := range tt.verdicts {
			d.Reports[1].Findings = append(d.Reports[1].Findings, Finding{Verdict: v})
		}
		if got := d.ExitCode(); got != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.verdicts, got, tt.want)
		}
	}
}

func TestSort(t *testing.T) {
	r := Report{Findings: []Finding{
		{ID: "na", Verdict: NotApplicable}, {ID: "held", Verdict: Held}, {ID: "depth", Verdict: Weaker, Consequence: Depth},
		{ID: "unknown", Verdict: Unknown}, {ID: "reads", Verdict: Leaked, Consequence: Reads}, {ID: "host", Verdict: Leaked, Consequence: Takeover},
	}}
	r.Sort()
	var got []string
	for _, f := range r.Findings {
		got = append(got, f.ID)
	}
	if want := "host reads depth unknown held na"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestDiff(t *testing.T) {
	doc := func(label string, verdicts ...Verdict) *Document {
		d := &Document{Reports: []Report{{Subject: Subject{Label: "other"}}, {Subject: Subject{Label: label}}}}
		for i, v := range verdicts {
			if v != "" {
				d.Reports[1].Findings = append(d.Reports[1].Findings, Finding{ID: fmt.Sprintf("a.%d", i), Verdict: v})
			}
		}
		return d
	}
	got := Diff(doc("vm", Held, Held, Leaked, Held, ""), doc("vm", Held, Weaker, Held, "", Unknown))
	want := []Change{{"vm", "a.1", Held, Weaker}, {"vm", "a.2", Leaked, Held}, {"vm", "a.4", "", Unknown}, {"vm", "a.3", Held, ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !got[0].Opened() || got[1].Opened() {
		t.Error("opened is not told from shut")
	}
	if got := Diff(doc("vm", Held), doc("container", Leaked)); got != nil {
		t.Errorf("other subjects are compared: %v", got)
	}
}

// FuzzDecode: whatever is taken is within the limits, and writing it gives a text
// that is read as the same.
func FuzzDecode(f *testing.F) {
	b, err := example().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":2,"kind":"audit","tool":"","time":"0001-01-01T00:00:00Z","reports":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Decode(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(bytes.NewReader(again))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, got); diff != "" {
			t.Error(diff)
		}
		Diff(d, got)
		for i := range d.Reports {
			d.Reports[i].Sort()
		}
	})
}
