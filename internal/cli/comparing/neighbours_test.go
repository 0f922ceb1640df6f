package comparing

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// actors is a driver whose workloads are shell scripts in the meter's place.
type actors struct {
	driver
	victim, aggressor string
	asked             []string
	left              []string // names that nobody has made sure of
}

func (a *actors) command(ctx context.Context, name string, program []string) (*exec.Cmd, error) {
	script := a.victim
	if program[1] == "aggress" {
		script = a.aggressor
	}
	a.asked = append(a.asked, program[1]+" "+program[len(program)-1])
	a.left = append(a.left, name)
	return prepared(ctx, append([]string{"sh", "-c", script, "sh"}, program[1:]...)...), nil
}

func (a *actors) launch(cmd *exec.Cmd) error { return cmd.Start() }

func (a *actors) ended(_ context.Context, name string, _ error) error {
	a.left = slices.DeleteFunc(a.left, func(s string) bool { return s == name })
	return nil
}

// limitable are actors that can be limited.
type limitable struct{ *actors }

func (l limitable) limited(ctx context.Context, name string, program []string) (*exec.Cmd, error) {
	l.asked = append(l.asked, "limited")
	return l.command(ctx, name, program)
}

const (
	// calm is a victim whose rounds are slower from one to the next, eager an aggressor.
	calm  = `echo ready; n=0; while read go; do n=$((n+1)); echo '{"count":'$((n+10))',"seconds":1,"p50":'$n',"p99":'$((n+100))'}'; done`
	eager = `for kind; do :; done; echo begun; cat; echo '{"kind":"'$kind'","unit":"things done","done":40,"refused":1,"seconds":2,"told":true}'`
)

// besidesOf is one round of actors.
func besidesOf(t *testing.T, d driver, rounds int) *way {
	t.Helper()
	w := &way{driver: d, subject: report.Subject{Label: "actors"}}
	for n := range rounds {
		w.besides(t.Context(), n, time.Second)
	}
	return w
}

// TestBesides: every cell is what the victim did beside the neighbour in what it did
// alone before that.
func TestBesides(t *testing.T) {
	a := &actors{victim: calm, aggressor: eager}
	w := besidesOf(t, limitable{a}, 2)
	if w.failed || len(a.left) > 0 {
		t.Errorf("failed: %v, left %q", w.failed, a.left)
	}
	// Each kind has three rounds of the victim: alone, beside one, beside the other. In
	// the second of all the order is the other way round, of kinds and limits.
	for id, want := range map[string][]float64{
		"limited-p50.idle":        {2.0 / 1, 21.0 / 19},
		"unlimited-p50.idle":      {3.0 / 1, 20.0 / 19},
		"limited-rate.idle":       {12.0 / 11, 31.0 / 29},
		"unlimited-p99.cpu":       {106.0 / 104, 117.0 / 116},
		"limited-p50.connections": {20.0 / 19, 3.0 / 1},
	} {
		m := w.measure(id)
		if len(m.Samples) != len(want) || m.Unit != report.Ratio || m.Reason != "" {
			t.Errorf("%s: %+v", id, m)
			continue
		}
		for i := range want {
			if d := m.Samples[i] - want[i]; d < -1e-9 || d > 1e-9 {
				t.Errorf("%s: %v, want %v", id, m.Samples, want)
				break
			}
		}
	}
	if m := w.measure("neighbours.p50"); !slices.Equal(m.Samples, []float64{10, 10}) {
		t.Errorf("alone: %v", m.Samples) // the median of 1, 4, … 19
	}
	// What the neighbours did is told of each cell: 40 in two seconds.
	want := []report.Fact{{Name: "work of the neighbour, limited, forks", Value: "things done: 20.0/s, refused 2 times by a limit"}}
	if got := w.measure("limited-p99.forks").Parts; !slices.Equal(got, want) {
		t.Errorf("the work: %q, want %q", got, want)
	}
	victims, limited := 0, 0
	for _, s := range a.asked {
		switch {
		case strings.HasPrefix(s, "victim"):
			victims++
		case s == "limited":
			limited++
		}
	}
	if n := len(meter.AggressorKinds()); victims != 2 || limited != 2*n || len(a.asked) != victims+limited+4*n {
		t.Errorf("%d victims, %d limited of %d: %q", victims, limited, len(a.asked), a.asked)
	}
}

// TestBesidesOfNobody: a cell is empty for a reason that is true of it.
func TestBesidesOfNobody(t *testing.T) {
	never := `echo '{"kind":"forks","unit":"processes forked","done":0,"seconds":0,"error":"fork: EAGAIN"}'`
	for _, tt := range []struct {
		name              string
		victim, aggressor string
		limited, without  string // the beginning of the reason
		failed            bool
	}{
		{"no limits", calm, eager, "limited: nothing limits", "", false},
		{"it cannot begin", calm, never, "limited: nothing limits", "unlimited: it cannot do its work: fork: EAGAIN", false},
		{"it dies", calm, "echo the reason >&2; exit 3", "limited: nothing limits", "unlimited: it had not begun: sh", true},
		{"it is silent and ends", calm, "true", "limited: nothing limits", "unlimited: it had not begun: the program inside ended early", true},
		{"it dies at work", calm, "echo begun; exit 3", "limited: nothing limits", "unlimited: it had begun, and then: sh", true},
		{"it ends on its own", calm, strings.ReplaceAll(eager, `,"told":true`, ""), "limited: nothing limits", "unlimited: it ended before", true},
		{"it does nothing", calm, strings.ReplaceAll(eager, "40", "0"), "limited: nothing limits", "unlimited: it has done nothing", true},
		{"it is another", calm, strings.ReplaceAll(eager, "$kind", "idle"), "limited: nothing limits", "unlimited: the neighbour was one of idle", true},
		{"it fails at work", calm, strings.ReplaceAll(eager, `"told":true`, `"told":true,"error":"no space"`), "limited: nothing limits", "unlimited: it cannot go on with its work: no space", false},
		{"it says something else", calm, "echo hello; cat", "limited: nothing limits", `unlimited: it had not begun: the program inside says "hello`, true},
		{"it says too much", calm, eager + "; echo more", "limited: nothing limits", "unlimited: it had begun, and then: the program inside said more", true},
		{"a long line", calm, "head -c 5000 /dev/zero | tr '\\0' x; cat", "limited: nothing limits", "unlimited: it had not begun: the program inside said a line of more than 4096 bytes", true},
		{"no victim", "echo no room >&2; exit 1", eager, "the victim: sh", "the victim: sh", true},
		{"a victim that ends", "echo ready; read go; exit 1", eager, "limited: sh", "unlimited: sh", true},
		{"a victim that lies", `echo ready; while read go; do echo '{"count":1,"seconds":0,"p50":0,"p99":0}'; done`, eager, "limited: malformed", "unlimited: malformed", true},
	} {
		a := &actors{victim: tt.victim, aggressor: tt.aggressor}
		w := besidesOf(t, a, 1)
		for id, want := range map[string]string{"limited-p99.forks": tt.limited, "unlimited-rate.forks": tt.without} {
			if m := w.measure(id); !strings.HasPrefix(m.Reason, want) || (m.Reason == "") != (want == "") || m.Measured() != (want == "") {
				t.Errorf("%s: %s: %+v, want %q", tt.name, id, m, want)
			}
		}
		if w.failed != tt.failed || len(a.left) > 0 {
			t.Errorf("%s: failed %v, want %v; left %q", tt.name, w.failed, tt.failed, a.left)
		}
	}
	whole := besidesOf(t, &system{}, 1)
	if m := whole.measure("unlimited-p50.cpu"); m.Reason != errOneSystem.Error() || whole.failed {
		t.Errorf("a whole system: %+v", m)
	}
}

// TestTalkerIsLate: who says nothing is not waited for, and does not stay.
func TestTalkerIsLate(t *testing.T) {
	a := &actors{victim: "echo $$; exec sleep 60"}
	v, err := talk(t.Context(), a, []string{meterPath, "victim"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.hear(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := v.hear(50 * time.Millisecond); err == nil || err.Error() != "the program inside said nothing for 50ms" {
		t.Errorf("silent: %v", err)
	}
	if _, again := v.end(time.Minute); again == nil || len(a.left) > 0 || time.Since(begin) > 30*time.Second {
		t.Errorf("ended after %v with %v, left %q", time.Since(begin), again, a.left)
	}
	gone, cancel := context.WithCancel(t.Context())
	if v, err = talk(gone, a, []string{meterPath, "victim"}); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	_, _ = v.hear(10 * time.Second) // its own number, if it came to that
	if _, err := v.hear(10 * time.Second); !errors.Is(err, context.Canceled) || len(a.left) > 0 {
		t.Errorf("interrupted: %v, left %q", err, a.left)
	}
}

// TestLimits: the flags come after the user's own, and a runtime has the same limits in
// its bundle, which the next bundle does not have.
func TestLimits(t *testing.T) {
	x := &tool{program: []string{"docker"}, id: "0123", image: "box", flags: []string{"--memory", "1g"}}
	cmd, err := x.limited(t.Context(), "n", []string{meterPath, "hello"})
	if err != nil {
		t.Fatal(err)
	}
	if line := strings.Join(cmd.Args, " "); !strings.Contains(line, " --memory 1g --cpus 0.5 --memory 128m --pids-limit 64 --entrypoint ") {
		t.Errorf("the command is %s", line)
	}
	if len(x.flags) != 2 {
		t.Errorf("other workloads have %q", x.flags)
	}
	newEngine(t, "runc")
	r := &ociRuntime{program: "runc", made: &made{dir: t.TempDir()}, root: "/nowhere", spec: map[string]any{
		"process": map[string]any{}, "root": map[string]any{}, "linux": map[string]any{"resources": map[string]any{"devices": "none"}},
	}}
	if err := os.MkdirAll(r.dir("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := r.limited(t.Context(), "n", []string{"x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.command(t.Context(), "n", []string{"x"}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		`"resources":{"cpu":{"period":100000,"quota":50000},"devices":"none","memory":{"limit":134217728},"pids":{"limit":64}}`, `"resources":{"devices":"none"}`,
	} {
		b, err := os.ReadFile(filepath.Join(r.dir("bundle"+string(rune('1'+i))), "config.json"))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("bundle %d: %s, %v", i+1, b, err)
		}
	}
}

// TestOnlyIfNamed: what disturbs the machine is not measured unless somebody says so.
func TestOnlyIfNamed(t *testing.T) {
	for _, tt := range []struct {
		groups []string
		want   bool
	}{{nil, false}, {[]string{Start}, false}, {[]string{Start, Neighbours}, true}} {
		c := &comparison{Options: Options{Groups: tt.groups}, host: localHost(), made: &made{}}
		w := &way{driver: &direct{}}
		r := w.report(c)
		if got := r.Measure("limited-p50.cpu") != nil; got != tt.want || c.wants(Neighbours) != tt.want {
			t.Errorf("%q: %v, want %v", tt.groups, got, tt.want)
		}
		limits := slices.ContainsFunc(c.surroundings(t.Context(), ""), func(f report.Fact) bool { return f.Name == report.NeighbourLimits })
		if limits != tt.want {
			t.Errorf("%q: the limits are told: %v, want %v", tt.groups, limits, tt.want)
		}
	}
}

// TestUnmoved: what noise cannot tell from a neighbour that sleeps says so, and what it
// can does not.
func TestUnmoved(t *testing.T) {
	ratios := func(id string, samples ...float64) report.Measure {
		return report.Measure{ID: id, Unit: report.Ratio, Samples: samples}
	}
	r := report.Report{Measures: []report.Measure{
		ratios("limited-p50.idle", 0.9, 1, 1.1, 1, 1, 1.2), ratios("limited-p50.cpu", 2, 3, 2, 3, 2, 3), ratios("limited-p50.memory", 1.1, 3, 2, 3, 2, 3),
		ratios("limited-p50.forks", 2, 3), {ID: "limited-p50.dirty", Unit: report.Ratio, Reason: "no room"}, ratios("unlimited-p50.cpu", 2, 3, 2, 3, 2, 3),
	}}
	r.Measures[2].Note = "failed at times: no room"
	r.Measures = append(r.Measures, ratios("unlimited-p50.idle"))
	noteUnmoved(&r)
	const unmoved = "limited, p50: noise cannot tell it from a neighbour that sleeps"
	for id, want := range map[string]string{
		"limited-p50.idle": "", "limited-p50.cpu": "", "limited-p50.memory": "failed at times: no room; " + unmoved, "limited-p50.forks": unmoved, "limited-p50.dirty": "",
		"unlimited-p50.cpu": "un" + unmoved, // nobody knows
	} {
		if m := r.Measure(id); m.Note != want {
			t.Errorf("%s: %q, want %q", id, m.Note, want)
		}
	}
}
