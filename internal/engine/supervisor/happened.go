package supervisor

import (
	"strconv"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// happened records an event of the workload.
func (s *supervisor) happened(action string, pairs ...string) {
	spec := s.asked()
	s.layout.Happened(&spec, action, pairs...)
}

// networksHappened records an event of the networks that interfaces are in, as
// Docker does when a workload joins and leaves them.
func (s *supervisor) networksHappened(action string, nics []workload.NIC) {
	for _, n := range nics {
		if n.NetworkID == "" {
			continue // it is in none of the engine's
		}
		_ = s.layout.Events().Append(events.Event{ // one that is lost stops nothing
			Type: events.Network, Action: action, ID: n.NetworkID,
			Attributes: map[string]string{"container": string(s.start.Spec.ID), "name": n.Network, "type": "bridge"},
		})
	}
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
