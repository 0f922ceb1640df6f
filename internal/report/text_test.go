package report

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	r := &example().Reports[0]
	text := func(r *Report, verbose bool) string {
		var b strings.Builder
		if err := r.Text(&b, verbose); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for _, want := range []string{
		"container shares with the host: the kernel, Linux 6.18.44. Of 2 doors 1 stand open; 1 could not be tried; 1 of these waived.\n",
		"Note: a note.\n", "Open: " + string(Reads) + "\n", "    severity:  high\n", "Unknown, which is no pass: 1\n",
	} {
		if got := text(r, false); !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(text(r, false), "evidence") || !strings.Contains(text(r, true), "evidence:  openat(<x> & y) = EACCES\n") {
		t.Error("evidence is for --verbose")
	}
	host := Report{Subject: Subject{Label: "host", Boundary: Host}, Findings: []Finding{{ID: "a.b", Verdict: Held}}}
	if got, want := text(&host, false), "This is the host. Of 1 doors 0 stand open.\n"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
