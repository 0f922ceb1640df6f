package comparing

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// driver runs the image in one way. Its methods are called by one goroutine.
type driver interface {
	// setUp makes the image known, tearDown undoes that. Both are called once, also
	// tearDown after a setUp that failed.
	setUp(ctx context.Context, m *made) error
	tearDown(ctx context.Context) error
	runner
	// detach starts a workload that outlives the command, and returns what finds its
	// processes: words that are in command lines and names of cgroups.
	detach(ctx context.Context, name string, program []string, ports bool) (id string, err error)
	// remove ends workloads and removes them.
	remove(ctx context.Context, names ...string) error
	// address is where the host reaches port servedPort of a workload that was
	// detached with ports.
	address(ctx context.Context, name string) (string, error)
	// size is what the image takes on the disk, the layer that measures included.
	size(ctx context.Context) (int64, error)
}

// runner runs programs of the image to their end.
type runner interface {
	launcher
	// command runs a program, in a workload of this name where one is made for it.
	command(ctx context.Context, name string, program []string) (*exec.Cmd, error)
	// ended makes sure that nothing is left of a command that has ended with err.
	ended(ctx context.Context, name string, err error) error
}

// run has f run a program of the image, of which nothing is left afterwards.
func run(ctx context.Context, r runner, program []string, f func(cmd *exec.Cmd) error) error {
	name := newName("run")
	cmd, err := r.command(ctx, name, program)
	if err != nil {
		return err
	}
	err = f(cmd)
	// Also of a command that was interrupted.
	if left := r.ended(context.WithoutCancel(ctx), name, err); left != nil {
		return errors.Join(err, fmt.Errorf("what it left could not be removed: %w", left))
	}
	return err
}

// greet runs a program that says something.
func greet(ctx context.Context, r runner) error {
	return run(ctx, r, []string{meterPath, "hello"}, func(cmd *exec.Cmd) error {
		_, err := outputOf(ctx, cmd, r)
		return err
	})
}

// starter is a driver whose start is more than one command.
type starter interface {
	// start returns how long it took to the first output, and to the end.
	start(ctx context.Context, program []string) (output, end time.Duration, err error)
}

// stander is a driver that needs a machine beside its workloads. It stands for its own
// way's turns alone: others would start sooner for a name server that is up already,
// and share memory with it.
type stander interface {
	// stand starts it. Where that fails, so does what is run in it.
	stand(ctx context.Context)
	// rest ends what stand or a command has started, if there is any.
	rest(ctx context.Context) error
}

// entrant is a driver that can run a program in a workload that was detached.
type entrant interface {
	enter(ctx context.Context, name string, program []string) (output string, err error)
}

// sharer is a driver whose workloads share processes that are there without them.
type sharer interface {
	// shared is the ID of what they share, "" for nothing but daemons.
	shared() string
	// daemons are the names of programs that serve all workloads.
	daemons() []string
}

// way is one way to run the image, and what is known of it.
type way struct {
	driver
	subject report.Subject
	ours    bool
	flags   []string // of run, that make it this way and not another of ours
	refused error    // why run takes no such flags, nil if it does
	missing string   // why there is nothing to measure, "" if there is
	failed  bool     // something that is there could not be measured

	facts    *meter.Facts
	machine  *boundary.Machine // nil for a way without one, and before it was looked at
	measures []report.Measure
	doors    *report.Report
	work     map[string]*neighbourWork // of aggressors, by limits and kind
}

// errNone tells that a way does not have what is asked for.
type errNone string

func (e errNone) Error() string { return string(e) }

// measure returns the measure with an ID, which is added if it is new.
func (w *way) measure(id string) *report.Measure {
	for i := range w.measures {
		if w.measures[i].ID == id {
			return &w.measures[i]
		}
	}
	k := kindOf(id)
	w.measures = append(w.measures, report.Measure{ID: id, Name: k.name, Unit: k.unit, Better: k.better})
	return &w.measures[len(w.measures)-1]
}

// sample adds a number, or the reason why there is none. A number that was seen
// once makes a failure a note.
func (w *way) sample(id string, v float64, err error) {
	m := w.measure(id)
	var none errNone
	if err != nil && !errors.As(err, &none) {
		w.failed = true
	}
	if err == nil {
		m.Samples = append(m.Samples, v)
		if m.Reason != "" {
			m.Note, m.Reason = withFailure(m.Note, m.Reason), ""
		}
		return
	}
	switch {
	case len(m.Samples) == 0:
		m.Reason = reason(err)
	case !errors.As(err, &none):
		m.Note = withFailure(m.Note, reason(err))
	}
}

// atTimes is before the reason of a failure that was not the only thing seen.
const atTimes = "failed at times: "

// withFailure adds the last failure to a note, in the place of an earlier one.
func withFailure(note, why string) string {
	note, _, _ = strings.Cut(note, atTimes)
	if note = strings.TrimSuffix(note, "; "); note != "" {
		note += "; "
	}
	return note + atTimes + why
}

// text sets a text, or the reason why there is none.
func (w *way) text(id, text, why string) *report.Measure {
	m := w.measure(id)
	if m.Text, m.Reason = text, ""; text == "" {
		m.Reason = why
	}
	return m
}
