// Package comparing measures what isolating an image costs in several ways on this
// machine: no boundary at all, each of ours, and other programs where they are
// installed. It drives command lines, ours like those of others, as a person would.
//
//	Run ─┬─ prepare     the image and one layer more, which holds what measures
//	     ├─ way.setUp   that image known to each way: loaded, a tenant made
//	     ├─ starts, inside, networks, memory, density, neighbours, doors
//	     │              by turns: every way once in each round
//	     └─ tear down   whatever was made
//
// Every cell is measured, or says why it is not.
package comparing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/probing"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/safetext"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/scratch"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The groups of measures that Options.Groups chooses from. What a way is, its
// kernel, system and isolation, is always found out.
const (
	Start   = "start"
	Memory  = "memory"
	Density = "density"
	Inside  = "inside" // system calls, files, work, kernel features
	Network = "network"
	Doors   = "doors" // the prober's verdict
	// Neighbours, what a workload feels of others, disturbs the machine for minutes: it is
	// measured only if it is named.
	Neighbours = "neighbours"
)

// Groups are all of them, in the order in which they are measured.
var Groups = []string{Start, Inside, Network, Memory, Density, Neighbours, Doors}

// Options say what to measure, and how thoroughly.
type Options struct {
	Bulkhead []string // the command line of this program, with the flags that choose its state
	Flags    []string // of run, for the ways that are ours
	Image    string   // what the user named
	Command  []string // whose start is measured; empty for a program of ours
	System   string   // an image with an init for the way "system", "" for Image

	Only, Without []string      // labels of ways; Only empty for all
	Groups        []string      // empty for all but Neighbours
	Rounds        int           // of starts, from 1 to MaxRounds
	Cold          bool          // also starts with an empty page cache
	Density       int           // workloads at once at most, from 1 to MaxDensity
	Beside        time.Duration // that requests are taken beside a neighbour, from MinBeside to MaxBeside
	// TrustImage lets Command run without a boundary, as root on this host.
	TrustImage bool

	Meter, Prober string // programs on the host
	Scratch       string // where directories of comparisons are made, see package scratch
	Images        *image.Store
	// Check tells why run would refuse flags, nil if it would not.
	Check func(flags []string) error
	// Pull makes sure that an image is there.
	Pull func(ctx context.Context, name string) (workload.Image, error)
	// Inspect looks at a workload of ours, InspectTenant at the machine of a tenant.
	Inspect, InspectTenant func(ctx context.Context, name string) (*engine.Record, error)
	// Probe looks at the doors of a workload of ours of an image, with flags of run.
	Probe func(ctx context.Context, image string, flags []string, o probing.Options) (report.Report, error)
	// Say is told what is being done, and Said how it ended.
	Say, Said func(step, detail string)
	// Warn is told what a reader has to know who gets his figures nevertheless.
	Warn func(message string)
}

// The limits of Options.
const (
	MaxRounds  = 1000
	MaxDensity = 5000
	MinBeside  = 10 * time.Millisecond
	MaxBeside  = 20 * time.Second
)

// insideRounds is how often what is measured by programs inside is: the fewest
// that can tell two medians apart (report.Measure.Interval).
const insideRounds = 6

// memoryRounds is how often memory is: it varies little.
const memoryRounds = 3

// comparison is one run of the command.
type comparison struct {
	Options
	id   string // which everything that it makes can be told by, see Label
	dir  string // for what does not outlive the command
	host *host
	made *made // nil before it was
	ways []*way
	left error // what could not be taken down
}

// Run compares, and returns what it found, and whether everything that is there
// was measured. An error means that nothing could be, or that something could not
// be taken down; in the second case there is a document as well.
func Run(ctx context.Context, o Options) (_ *report.Document, complete bool, err error) {
	c := &comparison{Options: o, host: localHost()}
	before := meter.Load()
	own, stale, err := scratch.Open(o.Scratch)
	if err != nil {
		return nil, false, fmt.Errorf("make a directory for the comparison: %w", err)
	}
	c.id, c.dir = own.ID, own.Path
	defer func() { err = errors.Join(err, c.end(context.WithoutCancel(ctx), own)) }()
	if c.ways, err = c.choose(); err != nil {
		return nil, false, err
	}
	c.sweep(ctx, stale)
	c.Say("image", "adding what measures")
	if c.made, err = c.prepare(ctx); err != nil {
		return nil, false, err
	}
	c.Said("image", "ready")
	if err := c.setUp(ctx); err != nil {
		return nil, false, err
	}
	for _, g := range []struct {
		name    string
		measure func(context.Context)
	}{
		{Start, c.starts}, {Inside, c.inside}, {Network, c.networks}, {Memory, c.memory}, {Density, c.density}, {Neighbours, c.neighbours}, {Doors, c.doors},
	} {
		if ctx.Err() == nil && (g.name == Inside || c.wants(g.name)) {
			g.measure(ctx)
		}
	}
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	complete = true
	d := &report.Document{Format: report.Format, Kind: report.Compare, Time: time.Now().UTC().Truncate(time.Second), Machine: c.surroundings(ctx, before)}
	for _, w := range c.ways {
		d.Reports = append(d.Reports, w.report(c))
		complete = complete && !w.failed
	}
	return d, complete, nil
}

// wants reports whether a group is to be measured.
func (c *comparison) wants(group string) bool {
	return len(c.Groups) == 0 && group != Neighbours || slices.Contains(c.Groups, group)
}

// choose are the ways that the options name. The caller has checked their labels
// with Ways.
func (c *comparison) choose() ([]*way, error) {
	all := c.all()
	all = slices.DeleteFunc(all, func(w *way) bool {
		return len(c.Only) > 0 && !slices.Contains(c.Only, w.subject.Label) || slices.Contains(c.Without, w.subject.Label)
	})
	if len(all) == 0 {
		return nil, errors.New("no way to run the image is left")
	}
	return all, c.check(all)
}

// check finds out which ways of ours the flags leave, as some are for one boundary
// only, such as --kernel. It is an error if there were some and none is left.
func (c *comparison) check(all []*way) (first error) {
	left := false
	for _, w := range all {
		if !w.ours {
			continue
		}
		if w.refused = c.Check(slices.Concat(c.Flags, w.flags)); w.refused == nil {
			left = true
		} else if first == nil {
			first = w.refused
		}
	}
	if left {
		return nil
	}
	return first
}

// setUp brings the image to each way. One that fails is left out, with the reason;
// it is an error if none is left.
func (c *comparison) setUp(ctx context.Context) error {
	missing, last := 0, error(nil)
	for _, w := range c.ways {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.Say(w.subject.Label, "setting up")
		var err error
		if w.refused != nil {
			err = errNone(w.refused.Error())
		} else {
			err = w.setUp(ctx, c.made)
			c.rest(ctx, w)
		}
		if err != nil {
			w.missing = reason(err)
			var none errNone
			w.failed = !errors.As(err, &none) || slices.Contains(c.Only, w.subject.Label)
			c.Said(w.subject.Label, "left out: "+w.missing)
			missing++
			last = fmt.Errorf("no way to run the image works here; the last was %s: %w", w.subject.Label, err)
			continue
		}
		c.Said(w.subject.Label, "ready")
	}
	if missing == len(c.ways) {
		return last // of the others Said was told
	}
	return nil
}

// end takes down whatever was made. If something of it cannot be, the directory
// stays, by which the next comparison finds it.
func (c *comparison) end(ctx context.Context, own *scratch.Dir) (err error) {
	if c.made != nil {
		err = errors.Join(c.tearDown(ctx), c.ours(c.id).untag(ctx))
	}
	if err != nil {
		own.Close()
		return err
	}
	return own.Remove()
}

// tearDown removes what is left of workloads, and then what was set up.
func (c *comparison) tearDown(ctx context.Context) error {
	errs := []error{c.left, c.ours(c.id).sweep(ctx), sweepStates(ctx, c.dir)}
	for _, w := range slices.Backward(c.ways) {
		if err := w.tearDown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.subject.Label, err))
		}
	}
	return errors.Join(errs...)
}

// inTurn calls f for every way that is there, rounds times, in another order each
// time, so that what drifts on this machine hits all alike, and so does what one
// leaves to the next. A way that has taken longer than budget in all stops, though
// not before two rounds.
func (c *comparison) inTurn(ctx context.Context, what string, rounds int, budget time.Duration, f func(w *way)) {
	spent := map[*way]time.Duration{}
	there := slices.DeleteFunc(slices.Clone(c.ways), func(w *way) bool { return w.missing != "" })
	for round := range rounds {
		for _, i := range report.Order(len(there), round) {
			w := there[i]
			if ctx.Err() != nil || round >= 2 && spent[w] > budget {
				continue
			}
			c.Say(what, fmt.Sprintf("round %d of %d, %s", round+1, rounds, w.subject.Label))
			spent[w] += c.turn(ctx, w, f)
		}
	}
	c.Said(what, "measured, up to "+count(rounds, "round"))
}

// turn has f measure a way while what it needs stands, and nothing that another needs.
// It returns how long f took.
func (c *comparison) turn(ctx context.Context, w *way, f func(w *way)) time.Duration {
	if s, ok := w.driver.(stander); ok {
		s.stand(ctx)
		defer c.rest(ctx, w)
	}
	begin := time.Now()
	f(w)
	return time.Since(begin)
}

// rest takes down what stands for a way.
func (c *comparison) rest(ctx context.Context, w *way) {
	s, ok := w.driver.(stander)
	if !ok || ctx.Err() != nil { // an interrupted comparison takes down all of it
		return
	}
	if err := s.rest(context.WithoutCancel(ctx)); err != nil {
		w.failed = true
		c.Warn("what " + w.subject.Label + " needs stands while others are measured: " + reason(err))
	}
}

// reason is an error as a part of one line.
func reason(err error) string { return fit(strings.TrimSpace(err.Error()), 300) }

// fit makes text from anywhere a part of one line, of at most so many bytes.
func fit(s string, most int) string {
	s = safetext.Line(s)
	if len(s) > most {
		const more = " …"
		s = strings.ToValidUTF8(s[:most-len(more)], "") + more
	}
	return s
}
