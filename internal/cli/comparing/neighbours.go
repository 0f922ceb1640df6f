package comparing

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

const (
	// neighbourRounds is how often what neighbours feel is measured: the fewest that can
	// tell two medians apart.
	neighbourRounds = insideRounds
	// neighbourBudget is how long one way may take: machines that are emulated start
	// fourteen times in a round.
	neighbourBudget = 10 * time.Minute
	// aggression is how long an aggressor goes on that nobody ends.
	aggression = 2 * time.Minute
)

// What an aggressor "with limits" has: half a processor, less memory than the aggressor
// of memory reads, and so many processes.
const (
	neighbourCPUs   = 0.5
	neighbourMemory = meter.AggressorMemory // MiB
	neighbourPIDs   = 64
)

// neighbourLimits are those as flags of all command lines that are like Docker's.
var neighbourLimits = []string{
	"--cpus", fmt.Sprint(neighbourCPUs), "--memory", fmt.Sprintf("%dm", neighbourMemory), "--pids-limit", fmt.Sprint(neighbourPIDs),
}

// limiter is a driver that can limit what a workload takes.
type limiter interface {
	runner
	// limited is command, for a workload with neighbourLimits.
	limited(ctx context.Context, name string, program []string) (*exec.Cmd, error)
}

// limiting is a runner whose workloads have limits.
type limiting struct{ limiter }

func (l limiting) command(ctx context.Context, name string, program []string) (*exec.Cmd, error) {
	return l.limited(ctx, name, program)
}

// Why cells are empty that nobody could fill.
const (
	errUnlimited = errNone("nothing limits a process without a boundary")
	errOneSystem = errNone("what runs in a whole system shares its machine; its neighbours are other machines, as those of vm are")
)

// A share is how one figure of a victim beside a neighbour is reported: in that of the
// victim alone.
var shares = []struct {
	id, name string
	unit     report.Unit
	better   report.Better
	of       func(r *meter.Requests) float64
}{
	{"p50", "p50", report.Seconds, report.Less, func(r *meter.Requests) float64 { return r.P50 }},
	{"p99", "p99", report.Seconds, report.Less, func(r *meter.Requests) float64 { return r.P99 }},
	{"rate", "requests", report.PerSecond, report.More, func(r *meter.Requests) float64 { return r.Rate() }},
}

// The beginnings of IDs of cells.
const (
	besideLimited   = "limited-"
	besideUnlimited = "unlimited-"
)

// aloneID is the ID of a figure of a victim alone, besideID of its share beside a kind
// of neighbour.
func aloneID(share string) string                { return "neighbours." + share }
func besideID(limits, share, kind string) string { return limits + share + "." + kind }

// neighbourKinds are the measures of Neighbours.
func neighbourKinds() (all []kind) {
	for _, s := range shares {
		all = append(all, kind{aloneID(s.id), s.name, s.unit, s.better, Neighbours})
	}
	for _, limits := range []string{besideLimited, besideUnlimited} {
		for _, s := range shares {
			for _, k := range meter.AggressorKinds() {
				all = append(all, kind{besideID(limits, s.id, k), k, report.Ratio, s.better, Neighbours})
			}
		}
	}
	return all
}

// neighbours measures what a workload feels of others of the same way on this machine.
func (c *comparison) neighbours(ctx context.Context) {
	rounds := map[*way]int{}
	c.inTurn(ctx, "neighbours, getting ready", 1, neighbourBudget, func(w *way) { w.accustom(ctx) })
	c.inTurn(ctx, "neighbours", neighbourRounds, neighbourBudget, func(w *way) {
		w.besides(ctx, rounds[w], c.Beside)
		rounds[w]++
	})
}

// accustom starts a workload with the limits as often as makes a template of it, so
// that none is made while a victim is measured. What fails fails again later.
func (w *way) accustom(ctx context.Context) {
	if o, ok := w.driver.(*oursDriver); ok {
		for range o.often {
			_ = greet(ctx, limiting{o})
		}
	}
}

// besides measures a victim alone, and beside each neighbour with and without limits,
// in an order that the round says, each for some time. It stays the same workload.
func (w *way) besides(ctx context.Context, round int, took time.Duration) {
	if _, whole := w.driver.(*system); whole {
		w.allBesides(errOneSystem)
		return
	}
	victim, err := talk(ctx, w.driver, []string{meterPath, "victim", "-time", took.String(), "-dir", scratchPath})
	if err == nil {
		_, err = expect(victim, meter.Ready)
	}
	if err != nil {
		w.allBesides(fmt.Errorf("the victim: %w", err))
		return
	}
	kinds := meter.AggressorKinds()
	var alone []*meter.Requests
	for _, i := range report.Order(len(kinds), round) {
		before, err := requests(victim)
		if err == nil {
			alone = append(alone, before)
		}
		order := []string{besideLimited, besideUnlimited}
		for n := range order {
			limits := order[(n+round)%len(order)]
			var beside *meter.Requests
			var work *meter.Work
			failed := err
			if failed == nil {
				beside, work, failed = w.beside(ctx, victim, kinds[i], limits == besideLimited)
			}
			if ctx.Err() != nil {
				break // the command was interrupted
			}
			w.besideOne(limits, kinds[i], before, beside, work, failed)
		}
	}
	_, err = victim.end(patience)
	w.alone(alone, err)
}

// allBesides gives a reason to everything that a round would measure.
func (w *way) allBesides(err error) {
	for _, k := range neighbourKinds() {
		w.sample(k.id, 0, err)
	}
}

// alone takes the medians of what a victim did alone in one round as one sample, as
// it is the same one.
func (w *way) alone(all []*meter.Requests, err error) {
	for _, s := range shares {
		var m report.Measure
		for _, r := range all {
			m.Samples = append(m.Samples, s.of(r))
		}
		if len(all) > 0 {
			w.sample(aloneID(s.id), m.Median(), nil)
		}
		if err != nil {
			w.sample(aloneID(s.id), 0, err)
		}
	}
}

// besideOne adds what a victim did beside one neighbour, in what it did alone before.
func (w *way) besideOne(limits, kind string, alone, beside *meter.Requests, work *meter.Work, err error) {
	if err != nil {
		err = prefixed(strings.TrimSuffix(limits, "-"), err)
	}
	for _, s := range shares {
		id := besideID(limits, s.id, kind)
		if err != nil {
			w.sample(id, 0, err)
			continue
		}
		w.sample(id, s.of(beside)/s.of(alone), nil)
		w.measure(id).Parts = w.worked(limits+kind, work, s.id == shares[0].id)
	}
}

// neighbourWork is what the aggressors of one kind have done, in all rounds.
type neighbourWork struct {
	rate    report.Measure // of each, a second
	refused int64
}

// worked says how much the aggressors of a kind have done so far; what one has done
// more is added if it is news.
func (w *way) worked(key string, work *meter.Work, news bool) []report.Fact {
	if w.work == nil {
		w.work = map[string]*neighbourWork{}
	}
	all := w.work[key]
	if all == nil {
		all = &neighbourWork{}
		w.work[key] = all
	}
	if news {
		all.rate.Samples = append(all.rate.Samples, float64(work.Done)/work.Seconds)
		all.refused += work.Refused
	}
	says := fmt.Sprintf("%s: %s", work.Unit, report.PerSecond.Format(all.rate.Median()))
	if all.refused > 0 {
		says += fmt.Sprintf(", refused %d times by a limit", all.refused)
	}
	return []report.Fact{{Name: "work of the neighbour, " + strings.Replace(key, "-", ", ", 1), Value: says}}
}

// noteUnmoved says of each share that noise cannot tell from that beside a neighbour that
// sleeps: the victim did not respond, as far as anybody knows.
func noteUnmoved(r *report.Report) {
	for _, limits := range []string{besideLimited, besideUnlimited} {
		for _, s := range shares {
			idle := r.Measure(besideID(limits, s.id, meter.AggressorIdle))
			for _, k := range meter.AggressorKinds() {
				m := r.Measure(besideID(limits, s.id, k))
				if m == nil || m == idle || !m.Measured() || report.Separated(m, idle) {
					continue
				}
				says := fmt.Sprintf("%s, %s: noise cannot tell it from a neighbour that sleeps", strings.TrimSuffix(limits, "-"), s.name)
				m.Note = strings.TrimPrefix(m.Note+"; "+says, "; ")
			}
		}
	}
}

// prefixed is an error with words before it, and what there is not stays that.
func prefixed(words string, err error) error {
	var none errNone
	if errors.As(err, &none) {
		return errNone(words + ": " + err.Error())
	}
	return fmt.Errorf("%s: %w", words, err)
}

// beside has a victim take a round of requests while an aggressor is at work, and
// returns what both did. The aggressor says that it has begun before the round, and is
// told to end after it.
func (w *way) beside(ctx context.Context, victim *talker, kind string, limits bool) (_ *meter.Requests, _ *meter.Work, err error) {
	var r runner = w.driver
	if limits {
		l, ok := w.driver.(limiter)
		if !ok {
			return nil, nil, errUnlimited
		}
		r = limiting{l}
	}
	neighbour, err := talk(ctx, r, []string{meterPath, "aggress", "-most", aggression.String(), "-dir", scratchPath, kind})
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if _, e := neighbour.end(patience); err == nil {
			err = e
		}
	}()
	if said, err := expect(neighbour, meter.Begun); err != nil {
		return nil, nil, unable(said, fmt.Errorf("it had not begun: %w", err))
	}
	did, err := requests(victim)
	if err != nil {
		return nil, nil, fmt.Errorf("the victim: %w", err)
	}
	said, err := neighbour.end(patience)
	if err != nil {
		return nil, nil, fmt.Errorf("it had begun, and then: %w", err)
	}
	work, err := meter.DecodeWork(said)
	if err != nil {
		return nil, nil, err
	}
	return did, work, atWork(work, kind)
}

// unable is why an aggressor has not begun: what it says itself, if it does.
func unable(said []byte, err error) error {
	if w, e := meter.DecodeWork(said); e == nil && w.Error != "" {
		return errNone("it cannot do its work: " + w.Error)
	}
	return err
}

// atWork finds fault with an aggressor that was not at work all the time.
func atWork(w *meter.Work, kind string) error {
	switch {
	case w.Kind != kind:
		return fmt.Errorf("the neighbour was one of %s, and not of %s", w.Kind, kind)
	case w.Error != "":
		return errNone("it cannot go on with its work: " + w.Error)
	case !w.Told:
		return errors.New("it ended before the victim's requests did")
	case w.Done == 0 || w.Seconds <= 0:
		return errors.New("it has done nothing")
	}
	return nil
}

// expect hears a line that is known. The error of another one has it; it is returned,
// too.
func expect(t *talker, line string) ([]byte, error) {
	said, err := t.hear(patience)
	if err == nil && strings.TrimSuffix(string(said), "\n") != line {
		err = fmt.Errorf("the program inside says %q, and not %q", fit(string(said), 100), line)
	}
	return said, err
}

// requests has a victim take a round of them.
func requests(victim *talker) (*meter.Requests, error) {
	victim.say(meter.Go)
	said, err := victim.hear(patience)
	if err != nil {
		return nil, err
	}
	return meter.DecodeRequests(said)
}
