package workload

import "time"

// The restart policies, Docker's.
const (
	RestartNo            = "no"
	RestartOnFailure     = "on-failure" // after an exit code other than 0
	RestartAlways        = "always"
	RestartUnlessStopped = "unless-stopped"
)

// Restart says what happens when the first process has ended by itself. A
// workload that was stopped or killed by a command stays so.
type Restart struct {
	Policy string `json:"policy,omitempty"` // "" is "no"
	// Max bounds how often RestartOnFailure tries again, 0 for no bound.
	Max int `json:"max,omitempty"`
}

// Health is a command that tells, by exit code 0, that a workload does its work.
type Health struct {
	// Test is as in an image's config: {"NONE"}, {"CMD", args…} or
	// {"CMD-SHELL", command}. Empty means no check.
	Test []string `json:"test,omitempty"`
	// Interval is between the end of a check and the next, StartInterval the same
	// during StartPeriod; Timeout ends a check that takes longer; a failure during
	// StartPeriod does not count. Zero stands for 30 s, 5 s, 30 s and 0 s.
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`
	StartInterval time.Duration `json:"startInterval,omitempty"`
	// Retries is how many failures in a row make it unhealthy, 0 for 3.
	Retries int `json:"retries,omitempty"`
}

// The log drivers.
const (
	LogLocal = "local" // the engine's own files
	LogNone  = "none"
)

// Log says what is kept of the output.
type Log struct {
	// Driver is LogLocal, for which "" stands too, or LogNone.
	Driver string `json:"driver,omitempty"`
	// MaxSize is the size of one file in bytes, MaxFiles their number; 0 for the
	// defaults, 10 MiB and 3.
	MaxSize  int64 `json:"maxSize,omitempty"`
	MaxFiles int   `json:"maxFiles,omitempty"`
}
