package page

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// clean is a copy of d in which every text is visible as what it is. It keeps to
// the limits of package report.
func clean(d *report.Document) (*report.Document, error) {
	b, err := d.Encode()
	if err != nil {
		return nil, err
	}
	if d, err = report.Decode(bytes.NewReader(b)); err != nil {
		return nil, err
	}
	cleanAll(reflect.ValueOf(d))
	return d, nil
}

// cleanAll goes through everything, so that no field is forgotten when the model
// gets another.
func cleanAll(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		cleanAll(v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			cleanAll(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				cleanAll(v.Field(i))
			}
		}
	case reflect.String:
		v.SetString(visible(v.String()))
	}
}

// visible writes what a reader would not see as Go does in a literal: controls,
// overrides of the writing direction (CVE-2021-42574), characters without width,
// spaces that are not the usual one.
func visible(s string) string {
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hidden(r rune) bool { return !strconv.IsPrint(r) }

// clip is s, or its beginning if it is longer than n characters.
func clip(s string, n int) string {
	for i := range s {
		if n--; n < 0 {
			return s[:i] + "…"
		}
	}
	return s
}

// clipped is the whole of s where clip shows only a part, for a title.
func clipped(s string, n int) string {
	if clip(s, n) == s {
		return ""
	}
	return s
}
