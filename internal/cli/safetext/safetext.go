// Package safetext makes text from outside safe to print on a terminal. Image
// labels, workload names, error messages and log-like fields are chosen by
// whoever made the image or runs the registry; an escape sequence in one of
// them can rewrite the screen, answer back as typed input or hide the truth
// (CVE-2003-0063 and its many successors), a bidirectional override can
// reorder what is read (CVE-2021-42574), a newline can forge a table row.
package safetext

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns s fit to be one line, or a part of one: whatever is not
// printable is written as a Go escape, such as \x1b, \n or \u202e. Printable
// text, a space included, is unchanged.
func Line(s string) string { return escape(s, "") }

// Block is Line for text of several lines: newlines and tabs stay.
func Block(s string) string { return escape(s, "\n\t") }

// escape replaces every rune that is neither visible nor in keep.
func escape(s, keep string) string {
	if clean(s, keep) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case Visible(r) || strings.ContainsRune(keep, r):
			b.WriteRune(r)
		default:
			b.WriteString(escaped(r))
		}
		i += n
	}
	return b.String()
}

// clean reports whether escape would change nothing.
func clean(s, keep string) bool {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
		if !Visible(r) && !strings.ContainsRune(keep, r) {
			return false
		}
	}
	return true
}

// Visible reports whether a terminal shows r as itself: letters, marks,
// numbers, punctuation, symbols and the plain space. Controls (C0, DEL, C1),
// format characters (bidirectional overrides, zero-width joiners, tags),
// surrogates, private use, line and paragraph separators are not.
func Visible(r rune) bool {
	if r < 0x7f {
		return r >= 0x20
	}
	return unicode.IsPrint(r)
}

// escaped writes one rune as Go would in a string literal.
func escaped(r rune) string {
	switch {
	case r == '\n':
		return `\n`
	case r == '\t':
		return `\t`
	case r == '\r':
		return `\r`
	case r < 0x80:
		return fmt.Sprintf(`\x%02x`, r)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	default:
		return fmt.Sprintf(`\U%08x`, r)
	}
}
