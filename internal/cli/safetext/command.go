package safetext

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Command returns words as a command that can be copied into a shell, and that is
// one line of printable text. Words that a shell would take apart are in single
// quotes, and those with anything that is not printable in $'…' with octal escapes
// (POSIX.1-2024, 2.2.4).
func Command(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = word(w)
	}
	return strings.Join(quoted, " ")
}

// plain are the characters, beside letters and digits, that mean nothing to a shell.
const plain = "@%+=:,./_-"

func word(s string) string {
	switch {
	case s != "" && strings.IndexFunc(s, special) < 0:
		return s
	case clean(s, ""):
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\'' || r == '\\':
			b.WriteString(`\` + s[:n])
		case clean(s[:n], ""):
			b.WriteString(s[:n])
		default:
			for _, c := range []byte(s[:n]) {
				fmt.Fprintf(&b, `\%03o`, c)
			}
		}
		s = s[n:]
	}
	b.WriteByte('\'')
	return b.String()
}

func special(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(plain, r)
}
