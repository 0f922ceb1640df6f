package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/fake"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// checked is the spec of a workload with a quick health check.
func checked(test ...string) workload.Spec {
	s := spec("wait-signal", "TERM")
	s.Name = "h"
	s.Health = workload.Health{
		Test:     append([]string{"CMD", fake.Program}, test...),
		Interval: 5 * time.Millisecond, Timeout: 10 * time.Second, Retries: 2,
	}
	return s
}

// inside runs a command in a workload to its end.
func (w *world) inside(ref string, args ...string) {
	w.t.Helper()
	s, err := w.Exec(ctx(w.t), ref, process(args...), &Streams{})
	if err != nil {
		w.t.Fatal(err)
	}
	if exit, err := s.Wait(ctx(w.t)); err != nil || exit.Code != 0 {
		w.t.Fatalf("%v: %+v, %v", args, exit, err)
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Run(ctx(t), checked("isset", "ready"), nil); err != nil {
		t.Fatal(err)
	}
	r, err := w.WaitFor(ctx(t), "h", workload.Unhealthy)
	if err != nil {
		t.Fatal(err)
	}
	if h := r.Health; h.FailingStreak < 2 || len(h.Log) < 2 || h.Log[0].ExitCode != 1 || h.Log[0].Output != "no ready\n" {
		t.Errorf("got %+v", r.Health)
	}
	w.inside("h", "set", "ready")
	if r, err = w.WaitFor(ctx(t), "h", workload.Healthy); err != nil {
		t.Fatal(err)
	}
	if h := r.Health; h.FailingStreak != 0 || h.Log[len(h.Log)-1].ExitCode != 0 {
		t.Errorf("got %+v", r.Health)
	}

	// Paused, it is not asked.
	if err := w.Pause(ctx(t), "h"); err != nil {
		t.Fatal(err)
	}
	after := w.want("h", workload.Paused).Health
	for n := 0; ; n++ {
		before := after
		time.Sleep(100 * time.Millisecond)
		if after = w.want("h", workload.Paused).Health; fmt.Sprint(before) == fmt.Sprint(after) {
			break
		}
		if n == 3 { // one result may have been under way
			t.Fatalf("paused: got %+v, before %+v", after, before)
		}
	}
	if err := w.Unpause(ctx(t), "h"); err != nil {
		t.Fatal(err)
	}
	last := after.Log[len(after.Log)-1].Start
	w.await("h", func(r *Record) bool { return r.Health.Log[len(r.Health.Log)-1].Start.After(last) })
	if len(w.want("h", workload.Running).Health.Log) > workload.HealthLog {
		t.Error("the log grows")
	}
	if err := w.Stop(ctx(t), "h", nil); err != nil {
		t.Fatal(err)
	}
}

// TestHealthHangs has a check that never ends and one that writes without end.
func TestHealthHangs(t *testing.T) {
	for _, test := range [][]string{{"pause"}, {"bytes", "1000000000000"}} {
		w := newWorld(t)
		s := checked(test...)
		s.Health.Timeout, s.Health.Retries = 20*time.Millisecond, 1
		if _, err := w.Run(ctx(t), s, nil); err != nil {
			t.Fatal(err)
		}
		r, err := w.WaitFor(ctx(t), "h", workload.Unhealthy)
		if err != nil {
			t.Fatal(err)
		}
		got := r.Health.Log[0]
		if got.ExitCode != -1 || !strings.Contains(got.Output, "health check took longer than 20ms") || len(got.Output) > 4*workload.HealthOutput {
			t.Errorf("%v: got exit code %d, %d bytes: %.100q", test, got.ExitCode, len(got.Output), got.Output)
		}
		if err := w.Stop(ctx(t), "h", nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHealthCannotRun has a check whose program does not exist.
func TestHealthCannotRun(t *testing.T) {
	w := newWorld(t)
	s := checked()
	s.Health.Test = []string{"CMD-SHELL", "true"} // the fake has no shell
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	r, err := w.WaitFor(ctx(t), "h", workload.Unhealthy)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Health.Log[0]; got.ExitCode != -1 || !strings.Contains(got.Output, "/bin/sh") {
		t.Errorf("got %+v", got)
	}
}

func TestWaitFor(t *testing.T) {
	w := newWorld(t)
	s := spec("wait-signal", "TERM")
	s.Name = "h"
	if _, err := w.Create(ctx(t), s); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WaitFor(ctx(t), "h", workload.Healthy); !errors.Is(err, ErrCondition) {
		t.Errorf("healthy without a check: got %v", err)
	}
	got := make(chan error, 4)
	wait := func(c string) { _, err := w.WaitFor(ctx(t), "h", c); got <- err }
	step := func(what string, err error) {
		t.Helper()
		if err == nil {
			err = <-got
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	go wait("running")
	_, err := w.Start(ctx(t), "h", nil)
	step("running", err)
	go wait("paused")
	step("paused", w.Pause(ctx(t), "h"))
	go wait("running")
	step("unpaused", w.Unpause(ctx(t), "h"))
	go wait("stopped")
	step("stopped", w.Stop(ctx(t), "h", nil))
	go wait("removing")
	for len(got) == 0 && w.exists("h") {
		time.Sleep(10 * time.Millisecond) // until the watch is there, most likely
		if err := w.Remove(ctx(t), "h", false); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-got; err != nil && !errors.Is(err, workload.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}

	// What ends before it is healthy will not be.
	s = checked("isset", "ready")
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	go func() { _, err := w.WaitFor(ctx(t), "h", workload.Healthy); got <- err }()
	if err := w.Stop(ctx(t), "h", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, ErrCondition) {
		t.Errorf("ended: got %v", err)
	}
}

func (w *world) exists(ref string) bool {
	_, err := w.layout.Find(ref)
	return err == nil
}
