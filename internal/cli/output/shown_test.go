package output

import (
	"strings"
	"testing"
	"time"
)

type base struct {
	Shared string `json:"shared"`
	Name   string `json:"Name"`
}

type inspected struct {
	base
	Name   string            `json:"Name"`
	Off    bool              `json:"off,omitempty"`
	Count  int               `json:"count,omitzero"`
	Secret string            `json:"-"`
	Since  time.Time         `json:"since"`
	None   *base             `json:"none,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	List   []base            `json:"list,omitempty"`
	Data   []byte            `json:"data"`
	Any    any               `json:"any"`
	hidden int
	Plain  uint8
}

// TestInspected prints fields by the names of their JSON.
func TestInspected(t *testing.T) {
	v := inspected{
		base: base{Shared: "inner", Name: "inner"}, Name: "outer", Secret: "s", Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Labels: map[string]string{"a": "b"}, Data: []byte("data"), Any: base{Name: "within"}, hidden: 1, Plain: 7,
	}
	for format, want := range map[string]string{
		"{{.Name}} {{.shared}}":                           "outer inner",
		"{{.off}} {{.count}} {{.Plain}}":                  "false 0 7",
		"{{if gt .Plain 6}}more{{end}}":                   "more",
		"{{.since}}":                                      "2026-01-02T03:04:05Z",
		"{{if .none}}some{{else}}none{{end}}":             "none",
		"{{.labels.a}} {{index .labels \"c\"}}|":          "b |",
		"{{len .list}} {{.data}} {{.any.Name}}":           "0 ZGF0YQ== within",
		"{{range $k, $v := .labels}}{{$k}}={{$v}}{{end}}": "a=b",
		"{{json .list}}":                                  "[]",
	} {
		var b strings.Builder
		if err := Inspected(&b, format, []any{v, &v}); err != nil || b.String() != want+"\n"+want+"\n" {
			t.Errorf("%s: got %q, %v, want %q twice", format, b.String(), err, want)
		}
	}
	for _, format := range []string{"{{.Nope}}", "{{.labels.nope}}", "{{.Secret}}", "{{.hidden}}", "{{.any.Nope}}", "{{.none.Name}}", "{{.base}}", "{{.Off}}"} {
		var b strings.Builder
		if err := Inspected(&b, format, []any{v}); err == nil {
			t.Errorf("%s: got %q, want an error", format, b.String())
		}
	}
}
