package comparing

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// quiet are options of a comparison that says nothing, takes all flags, and fails the
// test where it warns.
func quiet(t *testing.T) Options {
	return Options{
		Say: func(string, string) {}, Said: func(string, string) {}, Warn: func(m string) { t.Error(m) },
		Check: func([]string) error { return nil },
	}
}

// TestInTurn: no way always comes after the same one.
func TestInTurn(t *testing.T) {
	c := &comparison{Options: quiet(t)}
	for _, label := range []string{"a", "b", "gone", "c", "d"} {
		c.ways = append(c.ways, &way{subject: report.Subject{Label: label}})
	}
	c.ways[2].missing = "not installed"
	var order []string
	const rounds = 4
	c.inTurn(t.Context(), "", rounds, time.Minute, func(w *way) { order = append(order, w.subject.Label) })
	follows := map[string]map[string]bool{}
	for i := range order {
		if i%4 == 0 {
			if round := slices.Sorted(slices.Values(order[i : i+4])); strings.Join(round, "") != "abcd" {
				t.Fatalf("a round has %q", round)
			}
			continue
		}
		if follows[order[i]] == nil {
			follows[order[i]] = map[string]bool{}
		}
		follows[order[i]][order[i-1]] = true
	}
	for _, label := range []string{"a", "b", "c", "d"} {
		if len(follows[label]) < 2 {
			t.Errorf("%s always follows %v: %q", label, follows[label], order)
		}
	}
}

// TestNothingStandsBy: while a way is measured, nothing runs that another one needs.
func TestNothingStandsBy(t *testing.T) {
	settle = 0
	defer func() { settle = 2 * time.Second }()
	state := newEngine(t, "bulkhead")
	o := quiet(t)
	o.Bulkhead, o.Rounds, o.Density = []string{"bulkhead"}, 2, 2
	o.InspectTenant = func(context.Context, string) (*engine.Record, error) {
		return &engine.Record{Spec: workload.Spec{ID: workload.NewID()}}, nil
	}
	o.Only = []string{"container", "vm", "tenant", "system"}
	c := &comparison{Options: o, id: "0123", host: localHost(), made: &made{ours: "box", dir: t.TempDir()}}
	var err error
	if c.ways, err = c.choose(); err != nil {
		t.Fatal(err)
	}
	if err := c.setUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.starts(t.Context())
	c.inside(t.Context())
	c.memory(t.Context())
	c.density(t.Context())
	standing := map[string]string{} // what runs beside commands, and for which way
	measured := map[string]int{}
	for _, line := range asked(t, state) {
		switch f := strings.Fields(line); f[0] {
		case "tenant":
			if delete(standing, "tenant"); f[1] != "stop" {
				standing["tenant"] = "tenant"
			}
		case "rm":
			for _, name := range f[3:] {
				delete(standing, name)
			}
		case "run":
			way := "other"
			for flag, of := range map[string]string{"--tenant": "tenant", "--systemd": "system"} {
				if slices.Contains(f, flag) {
					way = of
				}
			}
			for name, of := range standing {
				if of != way || strings.HasPrefix(name, "compare-system-") {
					t.Fatalf("%s of %s stands by for %s", name, of, line)
				}
			}
			measured[way]++
			if slices.Contains(f, "-d") {
				standing[f[slices.Index(f, "--name")+1]] = way
			}
		}
	}
	if len(standing) > 0 || len(measured) != 3 || measured["system"] < 10 {
		t.Errorf("%v were measured, %v stand in the end: the test shows nothing", measured, standing)
	}
}
