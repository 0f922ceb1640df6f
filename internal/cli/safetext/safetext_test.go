package safetext

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "hello, wörld 日本 🐳", "hello, wörld 日本 🐳"},
		{"escape sequence", "\x1b[2J\x1b]0;owned\x07", `\x1b[2J\x1b]0;owned\x07`},
		{"C1 control sequence introducer", "\u009b2J", `\u009b2J`},
		{"raw C1 byte", "\x9b2J", `\x9b2J`},
		{"delete", "a\x7fb", `a\x7fb`},
		{"newline forging a row", "a\nb", `a\nb`},
		{"carriage return", "good\rbad", `good\rbad`},
		{"backspaces", "bad\b\b\bgood", `bad\x08\x08\x08good`},
		{"tab", "a\tb", `a\tb`},
		{"right-to-left override", "txt.\u202eexe", `txt.\u202eexe`},
		{"isolate", "\u2066x\u2069", `\u2066x\u2069`},
		{"zero width", "a\u200bb\ufeff", `a\u200bb\ufeff`},
		{"line separator", "a\u2028b", `a\u2028b`},
		{"no-break space", "a\u00a0b", `a\u00a0b`},
		{"tag characters", "\U000e0041", `\U000e0041`},
		{"private use", "\ue000", `\ue000`},
		{"bad UTF-8", "a\xff\xc3", `a\xff\xc3`},
		{"replacement character itself", "a\ufffdb", "a\ufffdb"},
		{"empty", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Line(tt.in); got != tt.want {
				t.Errorf("Line(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestBlockKeepsLines(t *testing.T) {
	if got, want := Block("a\tb\nc\x1b[m\r\n"), "a\tb\nc\\x1b[m\\r\n"; got != want {
		t.Errorf("Block = %q, want %q", got, want)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\x1b[31m\u202e\n\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := Line(s)
		if !utf8.ValidString(got) {
			t.Errorf("Line(%q) = %q is not UTF-8", s, got)
		}
		for _, r := range got {
			if !Visible(r) {
				t.Errorf("Line(%q) = %q holds %U", s, got, r)
			}
		}
		if again := Line(got); again != got {
			t.Errorf("Line is not stable: %q then %q", got, again)
		}
	})
}

func ExampleLine() {
	fmt.Println(Line("name\x1b[31m"))
	// Output: name\x1b[31m
}

func TestWriter(t *testing.T) {
	var b strings.Builder
	w := NewWriter(&b)
	for _, s := range []string{"one\ntw", "o\x1b", "[m\nthr", "\xc3", "\xa9e"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "one\ntwo\\x1b[m\nthrée"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
