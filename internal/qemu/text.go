package qemu

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable makes what a guest or QEMU wrote safe to show on a terminal: every
// rune that a terminal does not show as itself becomes a Go escape, except
// newlines and tabs. A serial console's CR LF is a newline.
func Printable(b []byte) string {
	var out strings.Builder
	s := strings.ReplaceAll(string(b), "\r\n", "\n")
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&out, `\x%02x`, s[0])
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			out.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&out, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			fmt.Fprintf(&out, `\U%08x`, r)
		}
		s = s[n:]
	}
	return out.String()
}

// maxLine is how much of one line is shown, in bytes: a guest or QEMU chooses their
// lengths, and they go into a workload's record.
const maxLine = 400

// short cuts a text at maxLine.
func short(s string) string {
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine], "") + "…"
	}
	return s
}

// lastLines returns at most n lines that are not blank, from the end, each cut
// at maxLine.
func lastLines(s string, n int) []string {
	lines := strings.Split(s, "\n")
	var out []string
	for i := len(lines) - 1; i >= 0 && len(out) < n; i-- {
		if l := strings.TrimSpace(lines[i]); l != "" {
			out = append([]string{short(l)}, out...)
		}
	}
	return out
}
