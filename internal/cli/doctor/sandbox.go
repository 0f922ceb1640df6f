package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/ociruntime"
	"github.com/seed-f5e3b97b/bulkhead/internal/ociruntime/registry"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// sandbox asks for what --boundary gvisor needs, and nothing else does.
func sandbox(m Machine) []Result {
	const name = "gVisor"
	version, err := m.GVisor()
	switch {
	case errors.Is(err, workload.ErrUnsupported):
		return []Result{missing(name, err.Error()+": --boundary gvisor fails", "build runsc with `make runsc`, or register one with `bulkhead runtime add runsc PATH`")}
	case err != nil:
		return []Result{unknown(name, err)}
	}
	return []Result{ok(name, version)}
}

// gVisor looks where runs do: at the runtime registered as runsc, and for one that
// is installed.
func gVisor(root string) (string, error) {
	path := ""
	if e, err := registry.Open(root).Get("runsc"); err == nil && e.GVisor {
		path = e.Path
	} else if path, err = ociruntime.Find("runsc"); err != nil {
		return "", fmt.Errorf("%w: %w", workload.ErrUnsupported, err)
	}
	version, err := ociruntime.Runtime{Name: "runsc", Program: path}.Version(context.Background())
	return version + ", " + path, err
}
