package trace

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// tree writes phases as names, those that are parts of others behind them.
func tree(phases []Phase) string {
	var b strings.Builder
	for _, p := range phases {
		path := p.Name
		for in := p.Parent; in != 0; in = phases[in-1].Parent {
			path = phases[in-1].Name + "/" + path
		}
		b.WriteString(path + " by " + p.By + "\n")
	}
	return b.String()
}

// check finds what is true of every list.
func check(t *testing.T, phases []Phase) {
	t.Helper()
	for i, p := range phases {
		if p.Begin > p.End {
			t.Errorf("%s ends before it begins", p.Name)
		}
		if p.Parent < 0 || p.Parent > i {
			t.Fatalf("phase %d is a part of number %d", i+1, p.Parent)
		}
		if p.Parent > 0 {
			if in := phases[p.Parent-1]; p.Begin < in.Begin || p.End > in.End {
				t.Errorf("%s (%v to %v) reaches out of %s (%v to %v)", p.Name, p.Begin, p.End, in.Name, in.Begin, in.End)
			}
		}
	}
}

func TestNested(t *testing.T) {
	r := New("bulkhead")
	ctx := With(t.Context(), r)
	if From(ctx) != r {
		t.Fatal("the context has lost the recorder")
	}
	outer, o := Begin(ctx, "outer")
	Step(outer, "first").End()
	inner, i := Begin(outer, "second")
	Step(inner, "within").Of("guest").End()
	i.End()
	o.End()
	o.End()
	Step(ctx, "after").End()
	got := r.Take()
	check(t, got)
	want := "outer by bulkhead\nouter/first by bulkhead\nouter/second by bulkhead\nouter/second/within by guest\nafter by bulkhead\n"
	if tree(got) != want {
		t.Errorf("got\n%swant\n%s", tree(got), want)
	}
	if again := r.Take(); len(again) != 0 {
		t.Errorf("taken twice: %v", again)
	}
}

// TestGoingOn: what has not ended is left for the next list, and what was in it
// moves up.
func TestGoingOn(t *testing.T) {
	r := New("a")
	outer, o := Begin(With(t.Context(), r), "outer")
	middle, m := Begin(outer, "middle")
	Step(middle, "inner").End()
	late := Step(middle, "late")
	o.End()
	if got, want := tree(r.Take()), "outer by a\nouter/inner by a\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	m.End()
	late.End()
	got := r.Take()
	check(t, got)
	if want := "middle by a\nlate by a\n"; tree(got) != want { // late is longer than middle
		t.Errorf("got\n%swant\n%s", tree(got), want)
	}
}

func TestNobodyRecords(t *testing.T) {
	ctx := With(t.Context(), nil)
	if From(ctx) != nil {
		t.Fatal("a recorder came from nowhere")
	}
	inner, o := Begin(ctx, "x")
	if inner != ctx || o != nil {
		t.Error("something is recorded")
	}
	o.Of("y").End()
	Step(ctx, "z").End()
	Past(ctx, "p", "q", 1, 2)
	Merge(ctx, []Phase{{Name: "m", Begin: 1, End: 2}})
	var r *Recorder
	if got := r.Take(); got != nil {
		t.Error(got)
	}
	if n := testing.AllocsPerRun(100, func() { Step(ctx, "z").End() }); n != 0 {
		t.Errorf("a phase that nobody records makes %v allocations", n)
	}
}

// TestMerge joins what another process recorded, by way of JSON.
func TestMerge(t *testing.T) {
	theirs := New("supervisor")
	early := Step(With(context.Background(), theirs), "loaded")
	early.End()
	ours := New("bulkhead")
	ctx, o := Begin(With(t.Context(), ours), "start")
	outer, p := Begin(With(context.Background(), theirs), "boundary")
	Step(outer, "cgroup").End()
	p.End()
	text, err := json.Marshal(theirs.Take())
	if err != nil {
		t.Fatal(err)
	}
	var came []Phase
	if err := json.Unmarshal(text, &came); err != nil {
		t.Fatal(err)
	}
	Merge(ctx, came)
	o.End()
	got := ours.Take()
	check(t, got)
	want := "start by bulkhead\nloaded by supervisor\nstart/boundary by supervisor\nstart/boundary/cgroup by supervisor\n"
	if tree(got) != want {
		t.Errorf("got\n%swant\n%s", tree(got), want)
	}
}

func TestMergeNonsense(t *testing.T) {
	r := New("a")
	ctx := With(t.Context(), r)
	Merge(ctx, []Phase{
		{Name: "backwards", Begin: 2, End: 1},
		{Name: "orphan", Parent: 1, Begin: 1, End: 2},
		{Name: "forward", Parent: 9, Begin: 1, End: 2},
		{Name: "negative", Parent: -3, Begin: 1, End: 2},
		{Name: "own", Parent: 5, Begin: 1, End: 2},
		{Name: strings.Repeat("x", MostName+1), Begin: 1, End: 2},
		{Name: "outside", Parent: 2, Begin: 1, End: 3},
		{Name: "before the clock", Begin: -1, End: 3},
	})
	got := r.Take()
	check(t, got)
	if want := "orphan by \nforward by \nnegative by \nown by \noutside by \n"; tree(got) != want {
		t.Errorf("got\n%swant\n%s", tree(got), want)
	}
}

// TestMost: a recorder that gets more than it keeps stays whole, whoever writes.
func TestMost(t *testing.T) {
	r := New("a")
	ctx := With(t.Context(), r)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range Most {
				outer, o := Begin(ctx, "outer")
				Step(outer, "inner").End()
				Merge(outer, []Phase{{Name: "other", Begin: Now(), End: Now()}})
				o.End()
			}
		})
	}
	wg.Wait()
	got := r.Take()
	check(t, got)
	if len(got) != Most {
		t.Errorf("%d phases, want %d", len(got), Most)
	}
	Step(ctx, "after").End()
	if got := r.Take(); len(got) != 1 {
		t.Errorf("after a list was taken there is room for %d", len(got))
	}
}

func TestFit(t *testing.T) {
	in := []Phase{{Name: "whole", Begin: 100, End: 120}, {Name: "part", Parent: 1, Begin: 105, End: 110}}
	for _, c := range []struct {
		name       string
		begin, end time.Duration
		want       []time.Duration
	}{
		{"room on both sides", 1000, 1040, []time.Duration{1010, 1030, 1015, 1020}},
		{"none", 1000, 1020, []time.Duration{1000, 1020, 1005, 1010}},
		{"too little", 1000, 1008, []time.Duration{1000, 1008, 1005, 1008}},
		{"none at all", 1000, 1000, []time.Duration{1000, 1000, 1000, 1000}},
	} {
		var got []time.Duration
		out := Fit(in, c.begin, c.end)
		check(t, out)
		for _, p := range out {
			got = append(got, p.Begin, p.End)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	if got := Fit(in, 2, 1); got != nil {
		t.Errorf("between an end and a beginning: %v", got)
	}
}

func TestBorn(t *testing.T) {
	before := Now()
	Main()
	if b, l, n := Born(), Loaded(), Now(); b <= 0 || b >= before || l < before || l > n {
		t.Errorf("executed at %v, main called between %v and %v, said to be at %v", b, before, n, l)
	}
}
