package output

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
)

type row struct {
	ID, Name string
	List     []string
	Labels   map[string]string
}

// Label is a method that templates can call.
func (r row) Label(key string) string { return r.Labels[key] }

var listing = Listing{Columns: []Column{{"ID", "ID"}, {"NAME", "Name"}}, More: []Column{{"LABELS", "Labels"}}}

const evil = "a\x1b[2J\u009b\u202e\nb"
const evilShown = `a\x1b[2J\u009b\u202e\nb`

func TestWrite(t *testing.T) {
	rows := []row{
		{ID: "1", Name: "one", List: []string{"x", "y"}, Labels: map[string]string{"k": "v"}},
		{ID: "2", Name: evil, List: []string{evil}, Labels: map[string]string{"k": evil}},
	}
	for _, tt := range []struct{ name, format, want string }{
		{"table", "", "ID        NAME\n1         one\n2         " + evilShown + "\n"},
		{"named table", "table", "ID        NAME\n1         one\n2         " + evilShown + "\n"},
		{"own table", `table {{.Name}}\t{{.ID}}`, "NAME                      ID\none                       1\n" + evilShown + "   2\n"},
		{"table without a space", `table{{.ID}}\t{{.Labels}}`, "ID        LABELS\n1         map[k:v]\n2         map[k:" + evilShown + "]\n"},
		{"functions in a table", `table {{json .ID}}\t{{truncate .Name 1}}\t{{lower .ID}}\t{{join .Labels ""}}`,
			"ID        NAME      ID        LABELS\n\"1\"       o         1         map[k:v]\n" +
				`"2"       a         2         map[k:` + evilShown + "]\n"},
		{"method in a table", `table {{.ID}}\t{{.Label "k"}}\t{{.Label "com.example.build-no"}}`,
			"ID        k" + strings.Repeat(" ", len(evilShown)+2) + "build no\n1         v" + strings.Repeat(" ", len(evilShown)+2) + "\n2         " + evilShown + "   \n"},
		{"json", "json", `{"ID":"1","Name":"one","List":["x","y"],"Labels":{"k":"v"}}` + "\n" +
			`{"ID":"2","Name":"a\u001b[2J\u009b\u202e\nb","List":["a\u001b[2J\u009b\u202e\nb"],"Labels":{"k":"a\u001b[2J\u009b\u202e\nb"}}` + "\n"},
		{"field", "{{.Name}}", "one\n" + evilShown + "\n"},
		{"list", "{{.List}}", "[x y]\n[" + evilShown + "]\n"},
		{"join", `{{join .List ","}}`, "x,y\n" + evilShown + "\n"},
		{"method", `{{.Label "k"}}`, "v\n" + evilShown + "\n"},
		{"branches", `{{if .ID}}{{range $i, $x := .List}}{{$i}}={{$x}};{{end}}{{else}}{{.Name}}{{end}}{{with .Name}}{{upper .}}{{end}}`,
			"0=x;1=y;ONE\n0=" + evilShown + ";" + `A\x1b[2J\u009b\u202e\nB` + "\n"},
		{"json function", `{{json .Name}}`, "\"one\"\n" + `"a\u001b[2J\u009b\u202e\nb"` + "\n"},
		{"println", `{{println .Name}}`, "one\n\n" + evilShown + "\n\n"},
		{"define", `{{define "x"}}{{.Name}}{{end}}{{template "x" .}}`, "one\n" + evilShown + "\n"},
		{"variable", `{{$n := .Name}}{{$n}}`, "one\n" + evilShown + "\n"},
		{"print function", `{{print .Name}}`, "one\n" + evilShown + "\n"},
		{"words", `{{lower "AB"}} {{title "ab"}} {{truncate .Name 2}} {{index (split "a,b" ",") 1}}`, "ab Ab on b\nab Ab " + `a\x1b b` + "\n"},
		{"padding", `{{pad .ID 2 1}}|{{pad "" 2 1}}|{{pad .ID -1 0}}`, "  1 ||1\n  2 ||2\n"},
		{"written out breaks", `{{.ID}}\n{{.ID}}\tx`, "1\n1\tx\n2\n2\tx\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if err := Write(&b, listing, tt.format, rows); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("got:\n%q\nwant:\n%q", b.String(), tt.want)
			}
		})
	}
}

func TestFormatOfNothing(t *testing.T) {
	var b strings.Builder
	if err := Write[row](&b, listing, "{{.Nope}}", nil); err == nil {
		t.Error("a field that does not exist is not told")
	}
	if err := Write[row](&b, listing, "{{index .List 0}}", nil); err != nil || b.Len() > 0 {
		t.Errorf("%v, %q", err, b.String())
	}
}

func TestBadFormats(t *testing.T) {
	for _, format := range []string{"{{", "{{.Nope}}", "{{nope .ID}}", "table {{.Nope}}", "{{template \"x\"}}", "{{.ID.X}}"} {
		var b strings.Builder
		err := Write(&b, listing, format, []row{{ID: "1"}})
		if err == nil || !strings.HasPrefix(err.Error(), "--format") || strings.Contains(err.Error(), escaper) {
			t.Errorf("%q: %v", format, err)
		}
	}
	var b strings.Builder
	if err := Write(&b, listing, "{{.Nope}}", []row{{}}); err == nil || err.Error() != `--format "{{.Nope}}": there is no field Nope` {
		t.Errorf("a field that there is not: %v", err)
	}
}

// Whatever the data and the form, nothing unprintable but line breaks and tabs
// of the form itself is written, and no row is forged.
func FuzzWrite(f *testing.F) {
	f.Add(evil)
	f.Add("\xff\x00\u2028\U000e0041\x7f")
	f.Fuzz(func(t *testing.T, s string) {
		for _, format := range []string{"", "json", "{{.Name}}{{.List}}{{.Labels}}", `{{json .}}`, `{{range .List}}{{.}}{{end}}`} {
			var b strings.Builder
			if err := Write(&b, Listing{Columns: []Column{{"NAME", "Name"}}}, format, []row{{Name: s, List: []string{s}, Labels: map[string]string{s: s}}}); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			if want := map[bool]int{true: 2, false: 1}[format == ""]; len(lines) != want {
				t.Errorf("%q made %d lines of %q", format, len(lines), s)
			}
			for _, line := range lines {
				if safetext.Line(line) != line {
					t.Errorf("%q printed %q", format, line)
				}
			}
		}
		if !utf8.ValidString(s) {
			return
		}
		text, err := marshal(s, "")
		var back string
		if err != nil || json.Unmarshal([]byte(text), &back) != nil || back != s {
			t.Errorf("%q does not survive JSON: %q", s, text)
		}
	})
}

func TestAgo(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Hour, "Less than a second"}, {0, "Less than a second"}, {time.Second, "1 second"}, {59 * time.Second, "59 seconds"}, {61 * time.Second, "About a minute"},
		{2 * time.Minute, "2 minutes"}, {90 * time.Minute, "About an hour"}, {47 * time.Hour, "47 hours"}, {72 * time.Hour, "3 days"},
		{20 * 24 * time.Hour, "2 weeks"}, {90 * 24 * time.Hour, "3 months"}, {800 * 24 * time.Hour, "2 years"},
	} {
		if got := Ago(tt.d); got != tt.want {
			t.Errorf("Ago(%v) = %q, want %q", tt.d, got, tt.want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1kB", 1234567: "1.23MB", 999_499: "999kB", 999_500: "1MB", 1 << 40: "1.1TB", 1<<63 - 1: "9.22EB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}

func ExampleWrite() {
	_ = Write(os.Stdout, listing, "{{.Name}} has {{.ID}}", []row{{ID: "1", Name: "one"}})
	fmt.Println()
	// Output: one has 1
}
