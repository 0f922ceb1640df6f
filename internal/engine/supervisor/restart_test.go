package supervisor

import (
	"strings"
	"testing"
	"time"

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
