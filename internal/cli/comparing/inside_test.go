package comparing

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
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

// otherKernel has the meter in the workloads of newEngine see a kernel that is not this
// host's.
func otherKernel(t *testing.T, state string) *meter.Result {
	t.Helper()
	r := &meter.Result{Format: meter.Format, Facts: meter.Look()}
	r.Facts.Release, r.Facts.Memory, r.Facts.Available = "4.4", 3<<20, 1<<20
	b, err := r.Encode()
	if err == nil {
		err = os.WriteFile(filepath.Join(state, "facts"), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestUnseenMachine: what nobody could look at is not called something else.
func TestUnseenMachine(t *testing.T) {
	otherKernel(t, newEngine(t, "bulkhead"))
	kernel := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(kernel, make([]byte, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		boundary, isolation string
		kernel              []float64 // bytes
		err                 error
		failed              bool
	}{
		{"vm", "a virtual machine (QEMU, KVM)", []float64{2000}, nil, false},
		{"vm", "", nil, errors.New("stuck"), true},
		{"gvisor", "a kernel in user space", nil, nil, false},
	} {
		o := withImage(t)
		o.Inspect = func(context.Context, string) (*engine.Record, error) {
			return &engine.Record{Machine: &boundary.Machine{Kernel: kernel, Initramfs: kernel, Accel: "kvm"}}, tt.err
		}
		c := &comparison{Options: o, id: "0123", host: localHost(), dir: t.TempDir()}
		var err error
		if c.made, err = c.prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		w := &way{
			driver: &oursDriver{tool: tool{program: []string{"bulkhead"}, id: c.id, image: "box"}, made: c.made},
			ours:   true, subject: report.Subject{Boundary: tt.boundary},
		}
		c.identify(t.Context(), w)
		m, size := w.measure("isolation.mechanism"), w.measure("image.kernel")
		if !strings.HasPrefix(m.Text, tt.isolation) || (m.Text == "") != (tt.isolation == "") || w.failed != tt.failed {
			t.Errorf("%s, %v: %+v", tt.boundary, tt.err, m)
		}
		if !slices.Equal(size.Samples, tt.kernel) {
			t.Errorf("%s, %v: %+v", tt.boundary, tt.err, size)
		}
		if tt.err != nil && (!strings.Contains(m.Reason, "stuck") || !strings.Contains(size.Reason, "stuck")) {
			t.Errorf("%s, %v: %q, %q", tt.boundary, tt.err, m.Reason, size.Reason)
		}
	}
}

// TestGuestMemory: what a kernel of its own says is of the workload that was counted
// from outside, while that runs.
func TestGuestMemory(t *testing.T) {
	settle = 0
	defer func() { settle = 2 * time.Second }()
	state := newEngine(t, "docker")
	r := otherKernel(t, state)
	if err := os.WriteFile(filepath.Join(state, "real"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := &comparison{Options: quiet(t), host: localHost()}
	w := &way{driver: &oursDriver{tool: tool{program: []string{"docker"}, id: "0123", image: "box"}}, facts: &r.Facts}
	c.ways = []*way{w}
	c.memory(t.Context())
	if m := w.measure("memory.beside"); len(m.Samples) != memoryRounds {
		t.Fatalf("memory: %+v", m)
	}
	if m := w.measure("guest.memory"); len(m.Samples) != memoryRounds || m.Samples[0] != 2<<20 {
		t.Errorf("memory of the guest: %+v", m)
	}
	var name string
	for _, line := range asked(t, state) {
		switch f := strings.Fields(line); f[0] {
		case "run":
			if name = f[slices.Index(f, "--name")+1]; !slices.Contains(f, "-d") {
				t.Errorf("another workload: %s", line)
			}
		case "exec":
			if f[1] != name {
				t.Errorf("%s runs: %s", name, line)
			}
		case "rm":
			name = ""
		}
	}
}

// TestFlagsOfOneBoundary: a flag that is for some boundaries leaves the other ways out;
// one that is for none is an error, before anything runs.
func TestFlagsOfOneBoundary(t *testing.T) {
	newEngine(t, "bulkhead")
	o := quiet(t)
	o.Bulkhead, o.Only, o.Flags = []string{"bulkhead"}, []string{"container", "vm-booted"}, []string{"--kernel", "x"}
	never := false
	o.Check = func(flags []string) error {
		if never || !slices.Contains(flags, "vm") {
			return errors.New("no such machine for " + strings.Join(flags, " "))
		}
		return nil
	}
	c := &comparison{Options: o, id: "0123", host: localHost(), made: &made{ours: "box", dir: t.TempDir()}}
	var err error
	if c.ways, err = c.choose(); err != nil {
		t.Fatal(err)
	}
	if err := c.setUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"no such machine for --kernel x", ""} {
		if w := c.ways[i]; w.missing != want {
			t.Errorf("%s: %q", w.subject.Label, w.missing)
		}
	}
	never = true
	if _, err := c.choose(); err == nil || err.Error() != "no such machine for --kernel x" {
		t.Errorf("for none: %v", err)
	}
}
