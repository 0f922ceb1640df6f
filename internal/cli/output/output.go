// Package output writes listings: as a table, as one JSON object a line, or
// through a Go template, as Docker's --format does. Whatever a row holds may
// have been chosen by an image or a stranger, so nothing unprintable of it
// reaches the writer, in any of the forms: see package safetext.
package output

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
)

// Column is one column of a table: what stands above it, and the field of a
// row that it shows. Fields have the names that templates use.
type Column struct{ Header, Field string }

// Listing is what a command lists.
type Listing struct {
	// Columns are those of the table that is shown without a format.
	Columns []Column
	// More are columns that only a "table …" format can ask for.
	More []Column
}

// Write writes rows, which are structs or pointers to structs, to w. format is
// "" or "table" for the table, "json" for one object a line, "table TEMPLATE"
// for a table of the template's columns (separated by \t), or a template that
// is run for each row.
func Write[T any](w io.Writer, l Listing, format string, rows []T) error {
	switch {
	case format == "" || format == "table":
		fields := make([]string, len(l.Columns))
		for i, c := range l.Columns {
			fields[i] = "{{." + c.Field + "}}"
		}
		return writeTable(w, l, strings.Join(fields, "\t"), rows)
	case format == "json":
		for _, row := range rows {
			if err := JSON(w, row); err != nil {
				return err
			}
		}
		return nil
	case strings.HasPrefix(format, "table"):
		return writeTable(w, l, strings.TrimSpace(strings.TrimPrefix(format, "table")), rows)
	}
	return Each(w, format, rows)
}

// Each runs a template for each row, one line each.
func Each[T any](w io.Writer, format string, rows []T) error {
	t, err := Parse(format)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return checkFields[T](t)
	}
	for _, row := range rows {
		if err := t.line(w, row); err != nil {
			return err
		}
	}
	return nil
}

// checkFields finds a field that rows do not have, so that a mistyped format is
// told also when there is nothing to list. Other errors may be due to the row
// being empty.
func checkFields[T any](t *Template) error {
	var row T
	if err := t.Execute(io.Discard, row); errors.Is(err, errNoField) {
		return err
	}
	return nil
}

// writeTable aligns the columns of a template under their headers.
func writeTable[T any](w io.Writer, l Listing, format string, rows []T) error {
	t, err := Parse(format)
	if err != nil {
		return err
	}
	headers := headerRow{}
	for _, c := range append(append([]Column{}, l.Columns...), l.More...) {
		headers[c.Field] = c.Header
	}
	head, err := t.headers()
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if err := head.line(tw, headers); err != nil {
		return err
	}
	for _, row := range rows {
		if err := t.line(tw, row); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// headerRow is what a table's template sees as its first row: headers by field.
type headerRow map[string]any

// Label is the header of {{.Label "KEY"}}: as in Docker, the last word of the key.
func (headerRow) Label(key string) string {
	return strings.NewReplacer("-", " ", "_", " ").Replace(key[strings.LastIndexByte(key, '.')+1:])
}

// JSON writes v as one line of JSON in which every unprintable character is
// escaped, also those that JSON itself would let through (DEL, C1 controls,
// bidirectional overrides).
func JSON(w io.Writer, v any) error { return writeJSON(w, v, "") }

// IndentedJSON is JSON spread over lines for people.
func IndentedJSON(w io.Writer, v any) error { return writeJSON(w, v, "    ") }

func writeJSON(w io.Writer, v any, indent string) error {
	text, err := marshal(v, indent)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return err
}

// marshal returns printable JSON and a newline.
func marshal(v any, indent string) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("write JSON: %w", err)
	}
	return escapeJSON(b.String()), nil
}

// escapeJSON replaces the unprintable characters of valid JSON, which can only
// be inside strings, by \u escapes.
func escapeJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || safetext.Visible(r) || r == utf8.RuneError:
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		}
	}
	return b.String()
}
