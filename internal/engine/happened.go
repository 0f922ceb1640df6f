package engine

import (
	"context"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
)

// Events calls f for each event of this run root: see events.Log.
func (e *Engine) Events(ctx context.Context, o events.Options, f func(events.Event) error) error {
	return e.layout.Events().Read(ctx, o, f)
}

// Happened records an event that is not a workload's. One that cannot be
// recorded is lost: what it is about was done.
func (e *Engine) Happened(kind, action, id string, attributes map[string]string) {
	e.warn(e.layout.Events().Append(events.Event{Type: kind, Action: action, ID: id, Attributes: attributes}))
}
