package supervisor

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestPauseAfter(t *testing.T) {
	for _, tt := range []struct{ last, ran, want time.Duration }{
		{0, 0, 100 * time.Millisecond},
		{100 * time.Millisecond, time.Second, 200 * time.Millisecond},
		{40 * time.Second, 0, time.Minute},
		{time.Minute, 9 * time.Second, time.Minute},
		{time.Minute, 10 * time.Second, 100 * time.Millisecond},
	} {
		if got := pauseAfter(tt.last, tt.ran); got != tt.want {
			t.Errorf("after %v and a life of %v: got %v, want %v", tt.last, tt.ran, got, tt.want)
		}
	}
}

func TestWants(t *testing.T) {
	failed := workload.Exit{Code: 1}
	for _, tt := range []struct {
		policy   workload.Restart
		exit     workload.Exit
		restarts int
		want     bool
	}{
		{workload.Restart{}, failed, 0, false},
		{workload.Restart{Policy: "no"}, failed, 0, false},
		{workload.Restart{Policy: "always"}, workload.Exit{}, 1000, true},
		{workload.Restart{Policy: "on-failure"}, workload.Exit{}, 0, false},
		{workload.Restart{Policy: "on-failure"}, failed, 1000, true},
		{workload.Restart{Policy: "on-failure", Max: 3}, failed, 2, true},
		{workload.Restart{Policy: "on-failure", Max: 3}, failed, 3, false},
		{workload.Restart{Policy: "unless-stopped"}, workload.Exit{}, 7, true},
	} {
		if got := wants(tt.policy, tt.exit, tt.restarts); got != tt.want {
			t.Errorf("%+v after %+v and %d restarts: got %v", tt.policy, tt.exit, tt.restarts, got)
		}
	}
}

func TestRemember(t *testing.T) {
	s := newSupervisor(&wire.Start{}, nil)
	defer s.idle.Stop()
	for n := range 20 {
		s.remember(workload.Exit{Code: n, Error: strings.Repeat("x", 10000)})
	}
	ends := s.state.Ends
	if s.state.Restarts != 20 || len(ends) != maxEnds || ends[maxEnds-1].Code != 19 || len(ends[0].Error) > maxReason {
		t.Errorf("got %d restarts, %d ends", s.state.Restarts, len(ends))
	}
}

// unstartable cannot be started, and something happens when that is tried.
type unstartable struct {
	boundary.Instance
	meanwhile func()
}

func (unstartable) PID() int { return 1 }

func (u unstartable) Start(context.Context) error {
	u.meanwhile()
	return errors.New("no")
}

// TestStopBesideLaunch stops a workload whose next life cannot be started at this
// moment: that it was stopped is what stays.
func TestStopBesideLaunch(t *testing.T) {
	id := workload.NewID()
	start := &wire.Start{Root: t.TempDir(), Spec: workload.Spec{ID: id}, State: state.State{Status: workload.Restarting, Restarts: 3}}
	s := newSupervisor(start, nil)
	defer s.idle.Stop()
	if err := os.MkdirAll(s.layout.Dir(id), 0o700); err != nil {
		t.Fatal(err)
	}
	l := &life{inst: unstartable{meanwhile: func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.state.Stopped = true
	}}}
	if err := s.launch(t.Context(), l); err == nil {
		t.Error("no error")
	}
	st, err := s.layout.ReadState(id)
	if err != nil || !st.Stopped || st.Status != workload.Restarting || st.Restarts != 3 {
		t.Errorf("got %+v, %v", st, err)
	}
}
