package report

import (
	"strings"
	"testing"
)

func TestUnitFormat(t *testing.T) {
	for _, tt := range []struct {
		u    Unit
		v    float64
		want string
	}{
		{Seconds, 3.2e-8, "32.0 ns"}, {Seconds, 9.996e-7, "1.00 µs"}, {Seconds, 0.0412, "41.2 ms"}, {Seconds, 0.99951, "1.00 s"},
		{Seconds, 71.26, "71.3 s"}, {Seconds, 0, "0 ns"}, {Bytes, 999, "999 B"}, {Bytes, 4.4e6, "4.40 MB"}, {Bytes, 9.996e6, "10.0 MB"},
		{BytesPerSecond, 1.306e9, "1.31 GB/s"}, {PerSecond, 12345, "12.3 k/s"}, {PerSecond, 12, "12.0/s"}, {Number, 38, "38"}, {Number, 812, "812"},
		{Ratio, 1.0449, "×1.04"}, {Ratio, 0.98, "×0.980"}, {Ratio, 212.4, "×212"},
	} {
		if got := tt.u.Format(tt.v); got != tt.want {
			t.Errorf("%v %s: %q, want %q", tt.v, tt.u, got, tt.want)
		}
	}
}

func TestComparison(t *testing.T) {
	start := func(samples ...float64) Measure {
		return Measure{ID: "start.output", Name: "to first output", Unit: Seconds, Better: Less, Samples: samples}
	}
	d := &Document{Kind: Compare, Machine: []Fact{{"kernel", "Linux 6.18"}, {"runc", "1.1.5"}}, Reports: []Report{
		{Subject: Subject{Label: "none"}, Measures: []Measure{
			{ID: "kernel.name", Name: "kernel", Text: "Linux 6.18"}, start(.001, .001, .001, .001, .001, .001),
			{ID: "new.thing", Name: "a new thing", Unit: Number, Samples: []float64{3}},
		}},
		{Subject: Subject{Label: "vm", Note: "emulated"}, Measures: []Measure{
			{ID: "kernel.name", Name: "kernel", Text: "Linux 6.1"}, start(.4, .4, .5, .4, .4, .4),
			{ID: "density.room", Name: "room for", Unit: Number, Samples: []float64{81}, Estimated: true, Note: "by the memory of each"},
		}, Findings: []Finding{{ID: "a.b", Verdict: Held}}},
		{Subject: Subject{Label: "crun", Note: "left out: not installed"}, Measures: []Measure{
			{ID: "kernel.name", Name: "kernel", Reason: "not installed"}, {ID: "start.output", Name: "to first output", Unit: Seconds, Reason: "not installed"},
		}},
	}}
	var b strings.Builder
	if err := d.Comparison(&b, false); err != nil {
		t.Fatal(err)
	}
	const want = `kernel                 Linux 6.18

What it is
        kernel
  none  Linux 6.18
  vm    Linux 6.1
  crun  –

Start
        to first output
  none        1.00 ms *
  vm           400 ms
  crun              –

Density
        room for
  none       –
  vm      ≈ 81
  crun       –

new
        a new thing
  none          3
  vm            –
  crun          –

Security boundary, as the prober found it
  vm shares with the host: nothing that was looked at. Of 1 doors 0 stand open.

vm: emulated.
vm: room for: by the memory of each.
crun: left out: not installed.

Medians. * marks the best, together with those that noise cannot tell from it; ≈ an estimate.
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b.Reset()
	if err := d.Comparison(&b, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1.1.5", "400 ms   (p50; max 500 ms; from 400 ms, 6)", "fewer than 10 samples"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("verbose has no %q:\n%s", want, b.String())
		}
	}
}

// TestNeighbours: tables of what neighbours feel say what limits them, and one reason for
// cells of several of them is told once.
func TestNeighbours(t *testing.T) {
	cell := func(id, name, why string, samples ...float64) Measure {
		return Measure{ID: id, Name: name, Unit: Ratio, Better: Less, Samples: samples, Reason: why}
	}
	d := &Document{Kind: Compare, Machine: []Fact{{NeighbourLimits, "--cpus 0.5"}}, Reports: []Report{{
		Subject: Subject{Label: "none"}, Measures: []Measure{
			cell("limited-p50.idle", "idle", "nothing limits it"), cell("limited-p50.cpu", "cpu", "nothing limits it"),
			cell("limited-p99.idle", "idle", "nothing limits it"), cell("limited-p99.cpu", "cpu", "nothing limits it"),
			cell("unlimited-p50.cpu", "cpu", "", 2, 2.5, 3),
		},
	}}}
	var b strings.Builder
	if err := d.Comparison(&b, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--cpus 0.5", "\nBeside a neighbour with limits: p99\n", "×2.50", "\nnone: idle, cpu: nothing limits it.\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("there is no %q:\n%s", want, b.String())
		}
	}
}

// TestSpread: of times the slow end is told, as p99 where there are enough samples.
func TestSpread(t *testing.T) {
	many := func(n int) (s []float64) {
		for i := range n {
			s = append(s, float64(i+1)/1000)
		}
		return s
	}
	for _, tt := range []struct {
		m    Measure
		want string
	}{
		{Measure{Unit: Seconds, Samples: many(2)}, "p50; max 2.00 ms; from 1.00 ms, 2"},
		{Measure{Unit: Seconds, Samples: many(9)}, "p50; max 9.00 ms; from 1.00 ms, 9"},
		{Measure{Unit: Seconds, Samples: many(10)}, "p50; p99 10.0 ms; 1.00 ms to 10.0 ms, 10"},
		{Measure{Unit: Seconds, Samples: many(200)}, "p50; p99 198 ms; 1.00 ms to 200 ms, 200"},
		{Measure{Unit: Number, Samples: []float64{3, 1, 2}}, "1 to 3, 3"},
	} {
		if got := tt.m.spread(); got != tt.want {
			t.Errorf("%d samples: %q, want %q", len(tt.m.Samples), got, tt.want)
		}
	}
}
