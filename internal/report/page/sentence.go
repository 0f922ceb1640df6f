package page

import (
	"fmt"
	"strings"
)

// sentence is a fact, in pieces: those that the document gave stand apart, so
// that no script in them changes the order of the words around.
type sentence []piece

type piece struct {
	Text string
	Data bool
}

// say makes a sentence. What the verb %d or %s stands for is the page's own; %v is
// a label from the document, or a list of them.
func say(format string, args ...any) (out sentence) {
	for {
		i := strings.IndexByte(format, '%')
		if i < 0 {
			return append(out, piece{Text: format})
		}
		out = append(out, piece{Text: format[:i]})
		verb := format[i+1]
		format = format[i+2:]
		if labels, ok := args[0].([]string); ok && verb == 'v' {
			out = append(out, list(labels)...)
		} else {
			out = append(out, piece{fmt.Sprint(args[0]), verb == 'v'})
		}
		args = args[1:]
	}
}

// maxNamed is how many subjects a sentence names.
const maxNamed = 6

// list is "a, b and c".
func list(labels []string) (out sentence) {
	shown := labels
	if len(labels) > maxNamed {
		shown = labels[:maxNamed-1]
	}
	for i, l := range shown {
		if i > 0 {
			sep := ", "
			if i == len(labels)-1 {
				sep = " and "
			}
			out = append(out, piece{Text: sep})
		}
		out = append(out, piece{clip(l, maxCell), true})
	}
	if n := len(labels) - len(shown); n > 0 {
		out = append(out, piece{Text: fmt.Sprintf(" and %d others", n)})
	}
	return out
}

// count is a small number as a word.
func count(n int) string {
	words := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
	if n < len(words) {
		return words[n]
	}
	return fmt.Sprint(n)
}

// several is a number of things: "1 door", "2 doors".
func several(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
