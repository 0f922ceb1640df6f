package comparing

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

func TestTimed(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	sh := func(script string) (first, end time.Duration, err error) {
		return timed(t.Context(), prepared(t.Context(), "sh", "-c", script), ordinary{})
	}
	// A sleep takes at least its time.
	first, end, err := sh("sleep 0.05; echo a; sleep 0.05")
	if err != nil || first < 50*time.Millisecond || end < first+50*time.Millisecond {
		t.Errorf("output after %v, end after %v: %v", first, end, err)
	}
	if _, end, err := sh("true"); !errors.Is(err, errSilent) || end <= 0 {
		t.Errorf("a silent program: %v, %v", end, err)
	}
	if _, _, err := sh("echo a; echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("a program that fails: %v", err)
	}
	if _, _, err := timed(t.Context(), exec.Command("/does/not/exist"), ordinary{}); err == nil {
		t.Error("a program that is not there")
	}
	// What is left in the background keeps the pipes, and may write on and on.
	for _, script := range []string{"sleep 20 & echo a", "yes >&2 & echo a; sleep 0.05", "yes & sleep 0.05"} {
		begin := time.Now()
		first, end, err := sh(script + "\necho $! > " + pid)
		if b, e := os.ReadFile(pid); e == nil {
			n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			if p, e := os.FindProcess(n); e == nil {
				_ = p.Kill() // yes may have ended for want of a reader
			}
		}
		if took := time.Since(begin); err != nil || took > 10*time.Second || end > took-draining/2 || first > draining/2 {
			t.Errorf("%s: output after %v, end after %v, all of it %v: %v", script, first, end, took, err)
		}
	}
	// More than a pipe holds: nobody may wait for the other.
	if _, _, err := sh("head -c 1000000 /dev/zero"); err != nil {
		t.Error(err)
	}
}

func TestFailure(t *testing.T) {
	cmd := exec.Command("/usr/bin/docker", "--host", "x", "run", "box")
	broken := errors.New("exit status 1")
	for said, want := range map[string]string{
		"":                       "docker x: exit status 1",
		"progress\nthe reason\n": "docker x: the reason",
		"bulkhead: warning: slow\nbulkhead: no such image\n\ntry: pull it\n": "docker x: bulkhead: no such image",
	} {
		if got := failure(t.Context(), cmd, broken, said).Error(); got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := failure(gone, cmd, broken, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if err := failure(t.Context(), cmd, nil, "a warning"); err != nil {
		t.Errorf("success: %v", err)
	}
}

// TestSample: a value that was seen stays, and a failure beside it is told.
func TestSample(t *testing.T) {
	w := &way{}
	w.sample("start.exit", 0, errors.New("one failure\n"))
	m := w.measure("start.exit")
	if m.Reason != "one failure" || !w.failed {
		t.Errorf("after a failure: %+v, failed %v", m, w.failed)
	}
	w.sample("start.exit", 2, nil)
	if m.Reason != "" || m.Note != "failed at times: one failure" || m.Median() != 2 {
		t.Errorf("after a success: %+v", m)
	}
	none := &way{}
	none.sample("start.output", 0, errSilent)
	if m := none.measure("start.output"); none.failed || m.Reason != string(errSilent) {
		t.Errorf("what there is not: %+v, failed %v", m, none.failed)
	}
}

func TestFigures(t *testing.T) {
	w := &way{}
	w.figures(&meter.Result{Figures: []meter.Figure{
		{ID: "calls.getpid", Unit: report.Seconds, Samples: []float64{3, 1, 2}}, {ID: "calls.tcp", Unit: report.Seconds, Error: "EPERM"},
	}}, nil)
	if m := w.measure("calls.getpid"); len(m.Samples) != 1 || m.Samples[0] != 2 {
		t.Errorf("the samples of one run count as %v", m.Samples)
	}
	if m := w.measure("calls.tcp"); m.Reason != "EPERM" {
		t.Errorf("what failed: %+v", m)
	}
	if m := w.measure("calls.pipe"); m.Reason == "" {
		t.Errorf("what is not there: %+v", m)
	}
}

// TestKinds: the meter measures what the tables have, and the other way round.
func TestKinds(t *testing.T) {
	have := map[string]bool{}
	for _, k := range kinds {
		have[k.id] = true
	}
	for _, id := range meter.IDs() {
		if !have[id] {
			t.Errorf("%s has no place in a comparison", id)
		}
		delete(have, id)
	}
	for id := range have {
		if group, _, _ := strings.Cut(id, "."); group == "calls" || group == "files" || group == "work" {
			t.Errorf("nobody measures %s", id)
		}
	}
}

func TestMechanism(t *testing.T) {
	h := &host{meter.Facts{Release: "6.18", Version: "#1", BootID: "a", Capabilities: "3f", Namespaces: map[string]string{"pid": "pid:[1]", "net": "net:[1]"}}}
	for _, tt := range []struct {
		f        meter.Facts
		by, want string
	}{
		{h.facts, "", "none"},
		{meter.Facts{Release: "6.18", Version: "#1", BootID: "a", Capabilities: "07", Seccomp: "2", NoNewPrivs: "1",
			Namespaces: map[string]string{"pid": "pid:[2]", "net": "net:[1]"}}, "", "1 namespace, seccomp, 3 capabilities, no_new_privs"},
		{meter.Facts{Release: "4.4", Capabilities: "3f"}, "", "a kernel of its own"},
		{meter.Facts{Release: "6.1", BootID: "b", Capabilities: "3f"}, "a virtual machine", "a virtual machine"},
	} {
		if got, _ := h.mechanism(&tt.f, tt.by); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.f, got, tt.want)
		}
	}
}

// TestAnyText: what was measured is not lost for what somebody wrote: a command, an
// option, an image's user.
func TestAnyText(t *testing.T) {
	long := strings.Repeat("ä", report.MaxText)
	for _, text := range []string{"set -e\necho a", "\x1b[2J", "\xff", long, "x" + long} {
		c := &comparison{
			Options: Options{Image: "box", Command: []string{"sh", "-c", text}, Flags: []string{"--env", text}},
			host:    localHost(), made: &made{user: text},
		}
		d := report.Document{Format: report.Format, Kind: report.Compare, Machine: c.surroundings(t.Context(), "")}
		for _, w := range []*way{{driver: &direct{}}, {driver: &tenant{}, ours: true}} {
			w.subject.Label = strconv.Itoa(len(d.Reports))
			d.Reports = append(d.Reports, w.report(c))
		}
		if _, err := d.Encode(); err != nil {
			t.Errorf("%.20q: %v", text, err)
		}
		if d.Reports[0].Subject.Note == "" || d.Reports[1].Subject.Command == "" {
			t.Errorf("%.20q: nothing is said of it", text)
		}
	}
}
