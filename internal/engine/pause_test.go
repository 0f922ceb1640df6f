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
// there is one called "hold". Or its workloads stop, and continue only to end.
type hangingBoundary struct {
	*fake.Boundary
	over string // what hangs: "pause", "resume" or "create"
}

func (b hangingBoundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	in, err := b.Boundary.Create(ctx, s, p)
	if err != nil {
		return nil, err
	}
	if b.over != "create" {
		return &hanging{in, filepath.Join(b.World, "pausing"), b.over == "resume"}, nil
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
	file  string
	stops bool
}

func (h *hanging) Pause(ctx context.Context) error {
	if h.stops {
		return nil
	}
	if err := os.WriteFile(h.file, nil, 0o600); err != nil {
		return err
	}
	<-ctx.Done()
	return errors.Join(ctx.Err(), os.Remove(h.file))
}

func (h *hanging) Resume(ctx context.Context) error {
	if !h.stops {
		return errors.New("it was not paused")
	}
	if _, err := h.Wait(ctx); err != nil {
		return err
	}
	return workload.ErrNotRunning
}

// TestKillPaused ends a paused workload that is gone before it could be continued:
// that is what was asked for, and no error.
func TestKillPaused(t *testing.T) {
	t.Setenv(envHang, "resume")
	w := newWorld(t)
	s := spec("wait-signal", "TERM")
	s.Name = "p"
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Pause(ctx(t), "p"); err != nil {
		t.Fatal(err)
	}
	w.want("p", workload.Paused)
	if err := w.Kill(ctx(t), "p", syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if r := w.await("p", func(r *Record) bool { return r.Status == workload.Exited }); r.Exit.Code != 137 {
		t.Errorf("got %+v", r.Exit)
	}
	if err := w.Remove(ctx(t), "p", true); err != nil {
		t.Error(err)
	}
	w.wantEmpty()
}

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
