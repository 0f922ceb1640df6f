package comparing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/meter"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/pss"
)

// settle is how long a started workload is left alone before its memory is
// counted: what helped to start it ends, and garbage collectors run once. Tests have
// less.
var settle = 2 * time.Second

// idle is a program that waits.
var idle = []string{meterPath, "idle"}

// memory counts what one idle workload takes.
func (c *comparison) memory(ctx context.Context) {
	c.inTurn(ctx, "memory", memoryRounds, 30*time.Second, func(w *way) {
		sum, err := c.footprint(ctx, w)
		w.sample("memory.beside", float64(sum.beside), err)
		w.sample("memory.daemons", float64(sum.shared), err)
		if err == nil {
			w.measure("memory.beside").Parts = sum.parts
		}
		if err == nil {
			err = sum.guestErr
		}
		w.sample("guest.memory", float64(sum.guest), err)
	})
}

// footprint is memory in bytes, by proportional set size.
type footprint struct {
	beside int64 // of processes that are there for this workload
	shared int64 // of those that serve others as well
	parts  []report.Fact

	guest    int64 // by the account of a kernel of its own
	guestErr error
}

func (c *comparison) footprint(ctx context.Context, w *way) (sum footprint, err error) {
	before, err := w.before(ctx)
	if err != nil {
		return sum, err
	}
	name := newName("idle")
	id, err := w.detach(ctx, name, idle, false)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, w.remove(context.WithoutCancel(ctx), name)) }()
	if err := wait(ctx, settle); err != nil {
		return sum, err
	}
	if sum, err = w.count(before, id); err != nil {
		return sum, err
	}
	// Afterwards, as who asks takes memory as well.
	if w.facts == nil || !c.host.other(w.facts) {
		sum.guestErr = errNone("its kernel is the host's")
	} else {
		sum.guest, sum.guestErr = w.guestMemory(ctx, name)
	}
	return sum, nil
}

// before are the processes that are there without a workload.
func (w *way) before(ctx context.Context) (pss.Processes, error) {
	if s, ok := w.driver.(sharer); ok && s.shared() != "" { // which was started just now
		if err := wait(ctx, settle); err != nil {
			return nil, err
		}
	}
	return pss.Snapshot()
}

// count adds up the memory of workloads that are there since before.
func (w *way) count(before pss.Processes, ids ...string) (sum footprint, err error) {
	now, err := pss.Snapshot()
	if err != nil {
		return sum, err
	}
	by := map[string]int64{}
	var shared []string
	s, _ := w.driver.(sharer)
	if s != nil && s.shared() != "" {
		shared = []string{s.shared()}
	}
	for _, p := range now.Owned(ids...) {
		if !before.Has(p) {
			sum.beside += p.PSS
			by[p.Name] += p.PSS
		}
	}
	if sum.beside == 0 {
		return sum, errors.New("no process of the workload was found")
	}
	// What a shared machine has grown by is the workload's.
	for _, p := range now.Owned(shared...) {
		sum.shared += p.PSS
		if old, ok := before[p.PID]; ok && before.Has(p) && p.PSS > old.PSS {
			sum.shared -= p.PSS - old.PSS
			sum.beside += p.PSS - old.PSS
			by[p.Name+", grown by"] += p.PSS - old.PSS
		}
	}
	if s != nil {
		for _, p := range now {
			if slices.Contains(s.daemons(), p.Name) {
				sum.shared += p.PSS
			}
		}
	}
	for name, n := range by {
		sum.parts = append(sum.parts, report.Fact{Name: name, Value: fmt.Sprintf("%.1f MB", float64(n)/1e6)})
	}
	slices.SortFunc(sum.parts, func(a, b report.Fact) int { return int(by[b.Name] - by[a.Name]) })
	return sum, nil
}

// guestMemory is what the kernel of a workload that runs says that it uses.
func (w *way) guestMemory(ctx context.Context, name string) (int64, error) {
	d, ok := w.driver.(entrant)
	if !ok {
		return 0, errNone("nobody can look into it")
	}
	out, err := d.enter(ctx, name, measuring("facts"))
	if err != nil {
		return 0, err
	}
	r, err := measured(out)
	if err != nil {
		return 0, err
	}
	return used(&r.Facts)
}

func used(f *meter.Facts) (int64, error) {
	if f.Memory == 0 || f.Available == 0 {
		return 0, errNone("its kernel does not say")
	}
	return f.Memory - f.Available, nil
}
