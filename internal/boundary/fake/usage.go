package fake

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Update notes limits, which limit nothing, one after the other. It refuses
// processors that it does not have.
func (in *instance) Update(_ context.Context, r workload.Resources) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.deleted {
		return workload.ErrNotRunning
	}
	if r.Memory != nil {
		in.limits.Memory = r.Memory
	}
	if r.Pids != nil {
		in.limits.Pids = r.Pids
	}
	if r.CpusetCPUs == "1000" {
		return fmt.Errorf("%w: there is no processor 1000", workload.ErrUnsupported)
	}
	return nil
}

// Measure counts processes; each takes a mebibyte.
func (in *instance) Measure(context.Context) (workload.Usage, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.deleted {
		return workload.Usage{}, workload.ErrNotRunning
	}
	u := workload.Usage{At: time.Now(), Pids: int64(len(in.running)), Memory: int64(len(in.running)) << 20}
	if m := in.limits.Memory; m != nil {
		u.MemoryLimit = *m
	}
	if p := in.limits.Pids; p != nil && *p > 0 {
		u.PidsLimit = *p
	}
	return u, nil
}

// Describe numbers the running processes from 1.
func (in *instance) Describe(context.Context) ([]workload.ProcessInfo, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	var out []workload.ProcessInfo
	for i, p := range in.running {
		out = append(out, workload.ProcessInfo{PID: i + 1, State: "S", Started: time.Now(), RSS: 1 << 20, Command: strings.Join(p.w.Args, " ")})
	}
	return out, nil
}
