// Package page shows a document of results as one HTML page that needs nothing
// else: no network, no file beside it, no script.
//
//	Document ── clean ──▶ view ── page.html.tmpl ──▶ Write
//	                       ├─ lead     sentences, computed from the document
//	                       ├─ table    measures × subjects
//	                       ├─ figures  one plot for each measure
//	                       ├─ matrix   doors × subjects, features × subjects
//	                       └─ details  everything about one subject
//
// A document may come from a hostile workload, and the page is opened in a
// browser. What keeps text from becoming anything else:
//
//   - html/template escapes all of it where it stands; only the style sheet and the
//     script, which are this package's own files, are exempt;
//   - what is not visible, such as an override of the writing direction, is spelled out
//     before anything else looks at the document (clean);
//   - no text becomes an address: links lead to numbered places of the page;
//   - the page's policy allows no request at all, and only that style sheet and that
//     script, by their hashes.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

//go:embed page.html.tmpl
var pageText string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// pageTemplate is parsed when a page is made: few commands make one.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Option("missingkey=error").Funcs(template.FuncMap{
		// dict gives a template several values.
		"dict": func(pairs ...any) map[string]any {
			m := map[string]any{}
			for i := 0; i < len(pairs); i += 2 {
				m[pairs[i].(string)] = pairs[i+1]
			}
			return m
		},
		"slot": func(i int) int { return i % stackColours },
	}).Parse(pageText))
})

// Write writes d as a page. Nothing is written if it cannot be made whole. The
// error wraps report.ErrMalformed if d is beyond a limit of package report.
func Write(w io.Writer, d *report.Document) error {
	d, err := clean(d)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := pageTemplate().Execute(&b, newView(d)); err != nil {
		return fmt.Errorf("make a page of the report: %w", err)
	}
	_, err = b.WriteTo(w)
	return err
}

// policy lets the page load and run nothing but its own style sheet and script.
func policy() string {
	return fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", hash(pageCSS), hash(pageJS))
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
