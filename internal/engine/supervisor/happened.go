package supervisor

import (
	"strconv"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// happened records an event of the workload.
func (s *supervisor) happened(action string, pairs ...string) {
	spec := s.asked()
	s.layout.Happened(&spec, action, pairs...)
}

// died records the end of a life.
func (s *supervisor) died(exit workload.Exit) {
	if exit.OOMKilled {
		s.happened("oom")
	}
	pairs := []string{"exitCode", strconv.Itoa(exit.Code)}
	if exit.Signal != 0 {
		pairs = append(pairs, "signal", strconv.Itoa(exit.Signal))
	}
	if exit.Error != "" {
		pairs = append(pairs, "error", exit.Error)
	}
	s.happened("die", pairs...)
}
