package agent

import (
	"context"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
)

// traced returns a context whose phases are recorded, if the host wants them, and
// a function that gives them in the words of the protocol.
func traced(ctx context.Context, wanted bool) (context.Context, func() protocol.Phases) {
	if !wanted {
		return ctx, func() protocol.Phases { return nil }
	}
	r, began := trace.New("agent"), trace.Now()
	return trace.With(ctx, r), func() protocol.Phases { return phases(r.Take(), began) }
}

// phases leaves out what the host would not take.
func phases(all []trace.Phase, began time.Duration) (out protocol.Phases) {
	for _, p := range all[:min(len(all), protocol.MaxPhases)] {
		out = append(out, protocol.Phase{Name: p.Name, Parent: p.Parent, Begin: p.Begin - began, End: p.End - began})
	}
	return out
}
