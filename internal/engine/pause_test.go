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

// hangingBoundary has workloads that do not stop for a pause. While one is tried
// there is a file "pausing" in the world.
type hangingBoundary struct{ *fake.Boundary }

func (b hangingBoundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	in, err := b.Boundary.Create(ctx, s, p)
	if err != nil {
		return nil, err
	}
	return &hanging{in, filepath.Join(b.World, "pausing")}, nil
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

// TestPauseHangs ends workloads while they are being paused, which takes for ever.
func TestPauseHangs(t *testing.T) {
	t.Setenv(envHang, "1")
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
			for limit := time.Now().Add(patience); !exists(filepath.Join(w.dir, "world", "pausing")); time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatal("it is not being paused")
				}
			}
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
