package comparing

import (
	"slices"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// TestUnsyncedIsNotBest: what is written and not synced, as nothing of it outlives the
// workload, is not better than what is.
func TestUnsyncedIsNotBest(t *testing.T) {
	c := &comparison{made: &made{}, ways: []*way{
		{driver: &oursDriver{}, ours: true, subject: report.Subject{Label: "container"}},
		{driver: &system{}, ours: true, subject: report.Subject{Label: "system"}},
		{driver: &peer{}, subject: report.Subject{Label: "docker"}},
		{driver: &peer{}, subject: report.Subject{Label: "podman"}},
	}}
	d := &report.Document{}
	for i, w := range c.ways {
		for range insideRounds {
			v := []float64{float64(1000 - i)}
			w.figures(&meter.Result{Figures: []meter.Figure{
				{ID: "files.write", Unit: report.BytesPerSecond, Samples: v}, {ID: "files.read", Unit: report.BytesPerSecond, Samples: v},
			}}, nil)
		}
		d.Reports = append(d.Reports, w.report(c))
	}
	if best := d.Best("files.read"); !slices.Equal(best, []int{0}) {
		t.Errorf("the best at reading are %v: the test shows nothing", best)
	}
	if best := d.Best("files.write"); !slices.Equal(best, []int{1}) {
		t.Errorf("the best at writing are %v", best)
	}
	for i, want := range []string{unsynced, "", "", ""} {
		if m := d.Reports[i].Measure("files.write"); m.Note != want || !m.Measured() {
			t.Errorf("%s: %+v", d.Reports[i].Subject.Label, m)
		}
	}
}
