package meter

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"golang.org/x/sys/unix"
)

// Options are what Measure needs to know.
type Options struct {
	// Time is the budget of each figure.
	Time time.Duration
	// Dir is where files are made, and removed.
	Dir string
	// Groups are those of Groups to measure.
	Groups []string
}

const (
	// briefly is how long a batch takes, about, unless that many as are kept would
	// leave some of the budget.
	briefly = 2 * time.Millisecond
	// maxTurns bounds a batch where the clock stands still.
	maxTurns = 1 << 20
)

// patience is what a figure or a feature may take beyond its budget: an emulated
// processor is slow, and a call may hang. Tests have less.
var patience = 30 * time.Second

// A figure is how something is measured.
type figure struct {
	id   string
	unit report.Unit
	each float64 // what one turn amounts to: pages, bytes; seconds are divided by it
	// most is how many turns a batch has at most; 0 stands for maxTurns.
	most int
	// slow batches take a tenth of the budget: they end with something that costs the
	// same however many turns there were.
	slow    bool
	prepare func(r *rig) (turns func(n int) error, err error)
}

// figures are all, in the order of a Result.
var figures = slices.Concat(callFigures, fileFigures, workFigures)

// IDs are those of all figures.
func IDs() (all []string) {
	for _, f := range figures {
		all = append(all, f.id)
	}
	return all
}

func group(id string) string {
	name, _, _ := strings.Cut(id, ".")
	return name
}

// Measure measures the groups. It never fails: what cannot be measured says so.
//
// It changes the process: the garbage collector is off from then on, and there are
// so many processors to Go that no thread waits for another one's.
func Measure(o Options) *Result {
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(max(4, runtime.NumCPU()))
	r := &Result{Format: Format, Facts: Look()}
	program := self()
	for i := range figures {
		if slices.Contains(o.Groups, group(figures[i].id)) {
			r.Figures = append(r.Figures, figures[i].measure(o, program))
		}
	}
	if slices.Contains(o.Groups, GroupFeatures) {
		for i := range features {
			r.Features = append(r.Features, features[i].ask(o.Dir, program, 0))
		}
	}
	return r
}

// self is the path of this program, also without /proc.
func self() string {
	const link = "/proc/self/exe"
	if unix.Access(link, unix.X_OK) == nil {
		return link
	}
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		return path
	}
	return os.Args[0]
}

// measure takes one figure, for a limited time. What hangs keeps its thread until
// the program ends.
func (f *figure) measure(o Options, program string) Figure {
	done := make(chan Figure, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		out := Figure{ID: f.id, Unit: f.unit}
		var err error
		if out.Samples, err = f.samples(&rig{dir: o.Dir, program: program, budget: o.Time}); err != nil {
			out.Samples, out.Error = nil, clean(err.Error())
		}
		done <- out
	}()
	select {
	case out := <-done:
		return out
	case <-time.After(o.Time + patience):
		return Figure{ID: f.id, Unit: f.unit, Error: fmt.Sprintf("it did not end within %v", o.Time+patience)}
	}
}

func (f *figure) samples(r *rig) (all []float64, err error) {
	defer r.close()
	turns, err := f.prepare(r)
	if err != nil {
		return nil, err
	}
	// A batch takes more than half as long as it is to.
	batch, most := max(briefly, 2*r.budget/MaxSamples), maxTurns
	if f.slow {
		batch = r.budget / 10
	}
	if f.most > 0 {
		most = f.most
	}
	timed := func(n int) (time.Duration, error) {
		start := time.Now()
		err := turns(n)
		return time.Since(start), err
	}
	deadline := time.Now().Add(r.budget)
	n := 1
	for {
		took, err := timed(n)
		if err != nil {
			return nil, err
		}
		if took > batch/2 || n >= most || time.Now().After(deadline) {
			break
		}
		n = min(2*n, most)
	}
	for range MaxSamples {
		took, err := timed(n)
		if err != nil {
			return nil, err
		}
		if took > 0 {
			all = append(all, f.sample(n, took))
		}
		if time.Now().After(deadline) {
			break
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the clock stands still")
	}
	return all, nil
}

// sample is what n turns in some time amount to, with six digits: more is noise.
func (f *figure) sample(n int, took time.Duration) float64 {
	s := took.Seconds() / (float64(n) * f.each)
	if f.unit != report.Seconds {
		s = 1 / s
	}
	s, _ = strconv.ParseFloat(strconv.FormatFloat(s, 'g', 6, 64), 64) // what FormatFloat wrote
	return s
}

// rig is what a figure has to work with, and what is to be taken down after it.
type rig struct {
	dir, program string
	budget       time.Duration
	closers      []func()
}

// later has something done at the end, the last first.
func (r *rig) later(f func()) { r.closers = append(r.closers, f) }

func (r *rig) close() {
	for _, f := range slices.Backward(r.closers) {
		f()
	}
}

// partner is another thread, which answers until it is told to stop by what is to
// be done later, and is waited for after that.
func (r *rig) partner(answer func() bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for answer() {
		}
	}()
	r.later(func() { <-done })
}
