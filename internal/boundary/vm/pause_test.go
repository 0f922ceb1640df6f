package vm

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestPauseStopsProcessors: a guest that goes on running its workload in spite
// of the agent's word is paused all the same.
func TestPauseStopsProcessors(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine; make test-full runs it")
	}
	f := newFixture(t)
	s := workload.Spec{
		ID: workload.NewID(), Boundary: "vm", Created: time.Now(), Network: "none",
		Process: workload.Process{Args: []string{"/bin/program", "pause"}, Cwd: "/"},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	in, err := Boundary{}.Create(ctx, s, f.prepare(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Delete(context.Background()) //nolint:errcheck // again below
	if err := in.Start(ctx); err != nil {
		t.Fatal(err)
	}
	guest := clientOf(in.(*instance).machine)
	running := func(want bool, when string) {
		t.Helper()
		limit := time.Minute
		if !want {
			limit = 2 * time.Second // in which a guest that runs answers
		}
		err := within(ctx, limit, func(ctx context.Context) error { _, err := guest.Status(ctx); return err })
		if want && err != nil || !want && !errors.Is(err, errSilent) {
			t.Errorf("%s: the guest shall answer: %v; %v", when, want, err)
		}
	}
	p := in.(boundary.Pauser)
	if err := p.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	running(false, "paused")
	if err := in.Signal(ctx, syscall.SIGWINCH); err != nil {
		t.Error(err)
	}
	running(false, "after a signal")
	if err := p.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	running(true, "resumed")
	if err := p.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	done, err := in.(*instance).machine.processors.ask(ctx) // as a long copy does
	if err != nil {
		t.Fatal(err)
	}
	running(true, "while somebody asks")
	if err := p.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	done()
	running(true, "resumed while somebody asked")
	if err := p.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := in.Signal(ctx, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if exit, err := in.Wait(ctx); err != nil || exit.Code != 137 {
		t.Errorf("killed while paused: %+v, %v", exit, err)
	}
	if err := in.Delete(ctx); err != nil {
		t.Error(err)
	}
}
