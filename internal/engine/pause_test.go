package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/fake"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// hangingBoundary takes its time, and while it does there is a file in the world:
// "pausing", as workloads do not stop for a pause, or "creating", for as long as
// there is one called "hold".
type hangingBoundary struct {
	*fake.Boundary
	over string // what hangs: "pause" or "create"
}

func (b hangingBoundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	in, err := b.Boundary.Create(ctx, s, p)
	if err != nil {
		return nil, err
	}
	if b.over == "pause" {
		return &hanging{in, filepath.Join(b.World, "pausing")}, nil
	}
	creating, hold := filepath.Join(b.World, "creating"), filepath.Join(b.World, "hold")
	for ; exists(hold); time.Sleep(time.Millisecond) {
		if err := os.WriteFile(creating, nil, 0o600); err != nil {
			return nil, err
		}
	}
	os.Remove(creating) // there is none without "hold"
	return in, nil
}

type hanging struct {
	boundary.Instance
	file string
}

func (h *hanging) Pause(ctx context.Context) error {
	if err := os.WriteFile(h.file, nil, 0o600); err != nil {
		return err
	}
	<-ctx.Done()
	return errors.Join(ctx.Err(), os.Remove(h.file))
}

func (h *hanging) Resume(context.Context) error { return errors.New("it was not paused") }

// awaitFile waits for a file in the world.
func (w *world) awaitFile(name string) {
	w.t.Helper()
	for end := time.Now().Add(patience); !exists(filepath.Join(w.dir, "world", name)); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: it does not come", name)
		}
	}
}

// TestPauseHangs ends workloads while they are being paused, which takes for ever.
func TestPauseHangs(t *testing.T) {
	t.Setenv(envHang, "pause")
	w := newWorld(t)
	for name, end := range map[string]func() error{
		"stop":   func() error { return w.Stop(ctx(t), "p", nil) },
		"kill":   func() error { return w.Kill(ctx(t), "p", syscall.SIGKILL) },
		"remove": func() error { return w.Remove(ctx(t), "p", true) },
	} {
		t.Run(name, func(t *testing.T) {
			s := spec("wait-signal", "TERM")
			s.Name, s.StopTimeout = "p", patience
			if _, err := w.Run(ctx(t), s, nil); err != nil {
				t.Fatal(err)
			}
			paused := make(chan error, 1)
			go func() { paused <- w.Pause(ctx(t), "p") }()
			w.awaitFile("pausing")
			if r := w.want("p", workload.Running); r.Exit != nil {
				t.Errorf("while it is being paused: got %+v", r)
			}
			if err := end(); err != nil {
				t.Error(err)
			}
			if err := <-paused; !errors.Is(err, workload.ErrNotRunning) {
				t.Errorf("the pause: got %v", err)
			}
			if name != "remove" {
				r := w.await("p", func(r *Record) bool { return r.Status == workload.Exited })
				if want := map[string]int{"stop": 7, "kill": 137}[name]; r.Exit.Code != want {
					t.Errorf("got %+v, want code %d", r.Exit, want)
				}
			}
			if err := w.Remove(ctx(t), "p", true); err != nil && !errors.Is(err, workload.ErrNotFound) {
				t.Error(err)
			}
			w.wantEmpty()
		})
	}
}
