package client

import (
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
)

// phases puts what an agent says that it did between two moments of this
// machine's clock, which the guest's says nothing about.
func phases(said protocol.Phases, begin, end time.Duration) []trace.Phase {
	var all []trace.Phase
	for _, p := range said {
		all = append(all, trace.Phase{Name: p.Name, By: "agent", Parent: p.Parent, Begin: p.Begin, End: p.End})
	}
	return trace.Fit(all, begin, end)
}
