package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pss"
)

const (
	memoryTitle = "Memory of idle workloads"
	// crowd is how many workloads run at once for the second figure.
	crowd = 10
	// settle is how long a started workload is left alone before it is looked
	// at: start-up helpers end, and garbage collectors run once.
	settle = 3 * time.Second
)

// footprint is memory in bytes by proportional set size: what a process shares
// with others counts in equal parts, so that sums are right.
type footprint struct{ inside, beside, daemons int64 }

// memoryResult is what one engine's idle workloads hold.
type memoryResult struct {
	label     string
	one, many footprint // of one workload, and of crowd
	processes []string  // beside one workload, by name
	err       error
}

// memory measures one engine after the other: side by side they would share
// pages of the same files.
func (f *field) memory(ctx context.Context) []memoryResult {
	var results []memoryResult
	for _, e := range f.running() {
		r := memoryResult{label: e.label}
		r.err = e.footprints(ctx, &r)
		results = append(results, r)
	}
	return results
}

func (e engine) footprints(ctx context.Context, r *memoryResult) (err error) {
	var names, ids []string
	defer func() {
		for _, n := range names {
			err = errors.Join(err, e.remove(context.WithoutCancel(ctx), n))
		}
	}()
	before, err := pss.Snapshot()
	if err != nil {
		return err
	}
	for i := range crowd {
		name := fmt.Sprintf("bulkhead-bench-idle%d", i)
		id, err := e.idle(ctx, name)
		if err != nil {
			return err
		}
		names, ids = append(names, name), append(ids, strings.TrimSpace(id))
		if i != 0 && i != crowd-1 {
			continue
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := pss.Snapshot()
		if err != nil {
			return err
		}
		sum, found := e.sum(now, before, ids)
		if sum.inside == 0 {
			return errors.New("found no process of the workload")
		}
		if i == 0 {
			r.one, r.processes = sum, found
		} else {
			r.many = sum
		}
	}
	return nil
}

// sum adds up what belongs to the workloads with the given IDs: processes that
// are new since before and are the engine's helpers or name a workload in their
// command line or cgroup, and the children of those. What runs in another
// process namespace than ours is inside the workload.
func (e engine) sum(now, before pss.Processes, ids []string) (footprint, []string) {
	self, _ := os.Readlink("/proc/self/ns/pid")
	var total footprint
	var beside []string
	for _, p := range now {
		if e.serves(p) {
			total.daemons += p.PSS
			continue
		}
		if before.Has(p) || !e.owns(p, now, ids) {
			continue
		}
		if p.PIDNS != self {
			total.inside += p.PSS
			continue
		}
		total.beside += p.PSS
		beside = append(beside, p.Name)
	}
	slices.Sort(beside)
	return total, beside
}

// serves reports whether a process is a daemon of the engine. Others of its name may
// serve somebody else's workloads.
func (e engine) serves(p pss.Process) bool {
	return slices.Contains(e.daemons, p.Name) && strings.Contains(p.Command, e.dir)
}

// owns reports whether a process is a helper of the engine, names a workload, or is
// below such a one.
func (e engine) owns(p pss.Process, now pss.Processes, ids []string) bool {
	return now.Below(p, func(p *pss.Process) bool { return slices.Contains(e.helpers, p.Name) || p.Names(ids...) })
}
