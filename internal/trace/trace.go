// Package trace records the phases of a start: how long each took, and which of
// them ran side by side, over all the processes that take part. A recorder
// travels in a context; without one nothing is recorded and a phase costs a
// look at the context.
//
//	bulkhead                 supervisor               bulkhead-network, agent
//	  New, With                New, With                New, With
//	  Begin … End              Begin … End              Begin … End
//	  Merge <──── a reply ──── Take, Merge <── a reply ─── Take
//
// Times are readings of CLOCK_MONOTONIC, which the processes of a machine have in
// common. A guest has a clock of its own: see Fit. Nothing is stored but in the
// memory of these processes, and each keeps a limited number of phases.
package trace

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/monotonic"
)

// Limits of what a recorder keeps and takes from another.
const (
	Most     = 256 // phases
	MostName = 64  // bytes of a name
)

// Phase is a part of a start.
type Phase struct {
	Name string `json:"name"`
	// By is the program that did it, or waited for it.
	By string `json:"by"`
	// Parent is the place, counted from 1, of the phase that this one is a part
	// of, in the same list and before this one; 0 for none.
	Parent int `json:"parent,omitempty"`
	// Begin and End are times since the machine was started.
	Begin time.Duration `json:"begin"`
	End   time.Duration `json:"end"`
}

// Took is how long the phase took.
func (p Phase) Took() time.Duration { return p.End - p.Begin }

// born is when the first of this process's own instructions ran that could look
// at a clock, and used the processor time that it had taken by then.
var born, used = monotonic.Now(), monotonic.Used()

// Born is about when this process's program was executed: what the process had
// used of a processor when it first looked at the clock is taken off. Where it
// waited before, such as for its own file, it was executed earlier.
func Born() time.Duration { return born - used }

// loaded is when Main was called.
var loaded = born

// Main says that the program's main function begins: all packages, of which this one
// is not the last, are initialized by then. It is called once, before anything else.
func Main() { loaded = monotonic.Now() }

// Loaded is when the program's main function began, if that calls Main.
func Loaded() time.Duration { return loaded }

// Now is the time of the clock of phases.
func Now() time.Duration { return monotonic.Now() }

// Recorder keeps phases until Take. A nil one keeps nothing. Its methods, and
// those of its phases, may be called from any goroutine.
type Recorder struct {
	by string

	mu     sync.Mutex
	phases []*Open
}

// New returns a recorder whose phases are done by the program of that name, where
// they do not say otherwise.
func New(by string) *Recorder { return &Recorder{by: by} }

// Open is a phase that may go on. A nil one is none.
type Open struct {
	r      *Recorder
	parent *Open
	ended  atomic.Bool
	phase  Phase // of which Parent is not used
}

// carried is what a context holds.
type carried struct {
	r  *Recorder
	in *Open
}

type key struct{}

// With returns a context whose phases go to r.
func With(ctx context.Context, r *Recorder) context.Context {
	if r == nil {
		return ctx
	}
	return context.WithValue(ctx, key{}, carried{r: r})
}

// From returns the recorder of a context, nil if it has none.
func From(ctx context.Context) *Recorder {
	c, _ := ctx.Value(key{}).(carried)
	return c.r
}

// Begin begins a phase, as a part of the one that ctx is from. What begins with
// the context that it returns is a part of it.
func Begin(ctx context.Context, name string) (context.Context, *Open) {
	c, _ := ctx.Value(key{}).(carried)
	if c.r == nil {
		return ctx, nil
	}
	o := c.r.add(c.in, Phase{Name: name, By: c.r.by, Begin: Now()}, false)
	if o == nil {
		return ctx, nil
	}
	return context.WithValue(ctx, key{}, carried{c.r, o}), o
}

// BeginAt is Begin for a phase that began at a time before now.
func BeginAt(ctx context.Context, name string, at time.Duration) (context.Context, *Open) {
	inner, o := Begin(ctx, name)
	if o != nil {
		o.r.mu.Lock()
		defer o.r.mu.Unlock()
		o.phase.Begin = at
	}
	return inner, o
}

// Step begins a phase that has no parts.
func Step(ctx context.Context, name string) *Open {
	_, o := Begin(ctx, name)
	return o
}

// Past records a phase that is over, as a part of the one that ctx is from.
func Past(ctx context.Context, name, by string, begin, end time.Duration) {
	c, _ := ctx.Value(key{}).(carried)
	if c.r != nil && begin <= end {
		c.r.add(c.in, Phase{Name: name, By: by, Begin: begin, End: end}, true)
	}
}

// add returns nil when there are too many.
func (r *Recorder) add(in *Open, p Phase, ended bool) *Open {
	o := &Open{r: r, phase: p}
	o.ended.Store(ended)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.phases) >= Most {
		return nil
	}
	o.parent = in.around(p)
	r.phases = append(r.phases, o)
	return o
}

// around is the closest phase to o, which it is a part of or o itself, that p lies
// within; nil if there is none. r.mu is held.
func (o *Open) around(p Phase) *Open {
	for ; o != nil; o = o.parent {
		if o.phase.Begin <= p.Begin && (!o.ended.Load() || p.End != 0 && p.End <= o.phase.End) {
			return o
		}
	}
	return nil
}

// Of says that somebody else does the phase, and returns it.
func (o *Open) Of(by string) *Open {
	if o != nil {
		o.r.mu.Lock()
		defer o.r.mu.Unlock()
		o.phase.By = by
	}
	return o
}

// End ends the phase; the first call counts.
func (o *Open) End() {
	if o == nil || o.ended.Load() {
		return
	}
	now := Now()
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	if !o.ended.Load() {
		o.phase.End = now
		o.ended.Store(true)
	}
}

// Take returns the phases that have ended, each after the one that it is a part
// of, and forgets them. Those that go on are for the next call: what is a part of
// one of them is a part of none in the list.
func (r *Recorder) Take() []Phase {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Phase
	var rest []*Open
	place := map[*Open]int{}
	for _, o := range r.phases {
		if !o.ended.Load() {
			rest = append(rest, o)
			continue
		}
		p := o.phase
		for in := o.parent; in != nil && p.Parent == 0; in = in.parent {
			if p.End <= in.phase.End { // one that went on beside it is no part of it
				p.Parent = place[in]
			}
		}
		out = append(out, p)
		place[o] = len(out)
	}
	r.phases = rest
	return out
}

// Merge takes over what another recorder of this machine has given, as parts of
// the phase that ctx is from. What began before that hangs higher. Phases that
// make no sense are dropped.
func Merge(ctx context.Context, phases []Phase) {
	c, _ := ctx.Value(key{}).(carried)
	if c.r == nil {
		return
	}
	taken := make([]*Open, len(phases))
	for i, p := range phases {
		in := c.in
		if p.Parent > 0 && p.Parent <= i && taken[p.Parent-1] != nil {
			in = taken[p.Parent-1]
		}
		if p.Begin > p.End || p.Begin < 0 || len(p.Name) > MostName || len(p.By) > MostName {
			continue
		}
		p.Parent = 0
		taken[i] = c.r.add(in, p, true)
	}
}

// Fit moves phases of another machine's clock to where they may have been between
// begin and end: as far from the one as from the other. What is longer than the
// time between, or reaches beyond the rest, is cut.
func Fit(phases []Phase, begin, end time.Duration) []Phase {
	if len(phases) == 0 || begin > end {
		return nil
	}
	first, last := phases[0].Begin, phases[0].End
	for _, p := range phases {
		first, last = min(first, p.Begin), max(last, p.End)
	}
	slack := max(0, (end-begin)-(last-first)) / 2
	out := make([]Phase, len(phases))
	for i, p := range phases {
		p.Begin = min(begin+slack+(p.Begin-first), end)
		p.End = max(p.Begin, min(begin+slack+(p.End-first), end))
		out[i] = p
	}
	return out
}
