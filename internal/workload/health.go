package workload

import "time"

// What a Health check says.
const (
	Starting  = "starting"
	Healthy   = "healthy"
	Unhealthy = "unhealthy"
)

// The figures that a zero field of Health stands for: Docker's.
const (
	DefaultHealthInterval      = 30 * time.Second
	DefaultHealthTimeout       = 30 * time.Second
	DefaultHealthStartInterval = 5 * time.Second
	DefaultHealthRetries       = 3
)

// HealthLog and HealthOutput bound what is kept of checks: how many results,
// and how many bytes of what each wrote.
const HealthLog, HealthOutput = 5, 4096

// HealthState is what the checks of a workload have shown in its present life.
type HealthState struct {
	Status string `json:"status"` // Starting, Healthy or Unhealthy
	// FailingStreak is how many checks in a row have failed.
	FailingStreak int `json:"failingStreak"`
	// Log holds the last results, oldest first.
	Log []HealthResult `json:"log,omitempty"`
}

// HealthResult is one check.
type HealthResult struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	// ExitCode is -1 when the command could not be run or took too long; Output
	// says which then.
	ExitCode int    `json:"exitCode"`
	Output   string `json:"output"`
}

// Checked reports whether the check asks for anything.
func (h Health) Checked() bool { return len(h.Test) > 1 && h.Test[0] != "NONE" }

// Complete returns h with the figures that its zero fields stand for.
func (h Health) Complete() Health {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&h.Interval, DefaultHealthInterval}, {&h.Timeout, DefaultHealthTimeout}, {&h.StartInterval, DefaultHealthStartInterval}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if h.Retries == 0 {
		h.Retries = DefaultHealthRetries
	}
	return h
}

// Add takes the result of a check at a workload that started at since.
func (s *HealthState) Add(h Health, since time.Time, r HealthResult) {
	s.Log = append(append([]HealthResult(nil), s.Log...), r)
	s.Log = s.Log[max(0, len(s.Log)-HealthLog):]
	switch {
	case r.ExitCode == 0:
		s.Status, s.FailingStreak = Healthy, 0
	case s.Status == Starting && r.End.Sub(since) < h.StartPeriod:
		// It may take its time to begin.
	default:
		if s.FailingStreak++; s.FailingStreak >= h.Complete().Retries {
			s.Status = Unhealthy
		}
	}
}
