package boundary

import (
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Ending remembers how a process ended: every call of Wait returns the same.
type Ending struct {
	mu   sync.Mutex
	exit *workload.Exit
}

// Once returns what is remembered, or what wait returns without an error.
func (e *Ending) Once(wait func() (workload.Exit, error)) (workload.Exit, error) {
	exit, err := wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exit != nil {
		return *e.exit, nil
	}
	if err == nil {
		e.exit = &exit
	}
	return exit, err
}
