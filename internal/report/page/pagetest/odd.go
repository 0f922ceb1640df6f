package pagetest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// Attack is the text that Hostile has everywhere: what ends elements, attributes,
// comments and scripts, addresses that run, and what turns text around or hides it.
const Attack = `</title></style></script><script>alert(1)</script><img src=x onerror=alert(1)>"'` + "`" +
	`><svg onload=alert(1)><a href="javascript:alert(1)">]]>--><!-- {{.}} ${x} &lt;b&gt; url(http://evil.example/) https://evil.example/ @import` +
	"\u202e\u2066\u200b\u0085\u009b\u2028\ufeff\U000e0041"

// Hostile is a document whose every text is an attack, as far as its limits allow.
func Hostile() *report.Document {
	d := Compare()
	d.Reports = append(d.Reports, Probe().Reports...)
	d.Reports[len(d.Reports)-1].Subject.Label = "another"
	d.Changes = []report.Change{{Label: "x", ID: "a.b", Old: report.Held, New: report.Leaked}}
	n := 0
	attack(reflect.ValueOf(d), &n)
	d.Kind = report.Compare
	for i := range d.Reports {
		for j := range d.Reports[i].Measures {
			if m := &d.Reports[i].Measures[j]; m.Measured() && j%3 == 0 {
				m.Samples = []float64{5e-324, 1.7e308, 0}
			}
		}
	}
	return d
}

// attack replaces every text that is not one of a few words or an identifier.
func attack(v reflect.Value, n *int) {
	switch v.Kind() {
	case reflect.Pointer:
		attack(v.Elem(), n)
	case reflect.Slice:
		for i := range v.Len() {
			attack(v.Index(i), n)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !slices.Contains([]string{"ID", "Kind", "Until"}, f.Name) {
				attack(v.Field(i), n)
			}
		}
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() && v.String() != "" {
			*n++
			v.SetString(fmt.Sprint(*n) + Attack)
		}
	}
}

// Unknown is a comparison of which nothing could be found out.
func Unknown() *report.Document {
	d := Compare()
	for i := range d.Reports {
		r := &d.Reports[i]
		for j := range r.Measures {
			m := &r.Measures[j]
			*m = report.Measure{ID: m.ID, Name: m.Name, Unit: m.Unit, Reason: "the image could not be run"}
		}
		for j := range r.Findings {
			f := &r.Findings[j]
			f.Verdict, f.Reason, f.Observed, f.Evidence = report.Unknown, "the image could not be run", "", nil
		}
	}
	return d
}

// Sparse is a document of one subject with a measure of a group that nobody has
// heard of, and labels that are long or missing.
func Sparse() *report.Document {
	return &report.Document{
		Format: report.Format, Kind: report.Compare, Tool: "bulkhead 0.9.0", Time: Time,
		Reports: []report.Report{
			{Measures: []report.Measure{{ID: "energy.joules", Name: "energy", Unit: report.Number, Better: report.Less, Samples: []float64{3, 4, 4, 5}}}},
			{Subject: report.Subject{Label: strings.Repeat("long", 200)}, Measures: []report.Measure{{ID: "energy.joules", Name: "energy", Unit: report.Number, Better: report.Less, Samples: []float64{12}}}},
		},
	}
}

// Empty has no subject.
func Empty(kind string) *report.Document {
	return &report.Document{Format: report.Format, Kind: kind, Tool: "bulkhead 0.9.0", Time: Time, Reports: []report.Report{}}
}

// All are the documents by name, for tests that want every kind.
func All() map[string]*report.Document {
	return map[string]*report.Document{
		"compare": Compare(), "probe": Probe(), "audit": Audit(12), "audit-many": Audit(60), "hostile": Hostile(), "unknown": Unknown(), "sparse": Sparse(),
		"empty-compare": Empty(report.Compare), "empty-probe": Empty(report.Probe), "empty-audit": Empty(report.Audit),
	}
}
