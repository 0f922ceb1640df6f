package workload

import (
	"testing"
	"time"
)

func TestHealthState(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		name   string
		h      Health
		codes  string // one result a second, "." is good
		status string
		streak int
	}{
		{"good", Health{}, ".", Healthy, 0},
		{"not yet bad", Health{}, "xx", Starting, 2},
		{"bad", Health{}, "xxx", Unhealthy, 3},
		{"bad again", Health{Retries: 1}, ".x", Unhealthy, 1},
		{"recovers", Health{Retries: 1}, "xx.", Healthy, 0},
		{"failures while it starts", Health{Retries: 1, StartPeriod: 10 * time.Second}, "xxxxx", Starting, 0},
		{"failure after it started", Health{Retries: 1, StartPeriod: 10 * time.Second}, "x.x", Unhealthy, 1},
		{"start took too long", Health{Retries: 2, StartPeriod: 2 * time.Second}, "xxx", Unhealthy, 2},
		{"a long streak", Health{}, "xxxxxxxxxx", Unhealthy, 10},
	} {
		s := HealthState{Status: Starting}
		for i, c := range tt.codes {
			r := HealthResult{End: start.Add(time.Duration(i+1) * time.Second)}
			if c == 'x' {
				r.ExitCode = 1
			}
			s.Add(tt.h, start, r)
		}
		if s.Status != tt.status || s.FailingStreak != tt.streak || len(s.Log) != min(len(tt.codes), HealthLog) {
			t.Errorf("%s: got %+v", tt.name, s)
		}
	}
}
