package supervisor

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ability returns the running instance as what a command needs, T.
func ability[T any](s *supervisor, what string) (can T, err error) {
	l, err := s.running()
	if err != nil {
		return can, err
	}
	can, ok := l.inst.(T)
	if !ok {
		return can, fmt.Errorf("%w: boundary %q cannot %s", workload.ErrUnsupported, s.spec.Boundary, what)
	}
	return can, nil
}

// describe describes the processes of the life that runs.
func (s *supervisor) describe() ([]workload.ProcessInfo, error) {
	d, err := ability[boundary.Describer](s, "describe processes")
	if err != nil {
		return nil, err
	}
	return d.Describe(context.Background())
}

// measure tells what the life that runs uses.
func (s *supervisor) measure() (*workload.Usage, error) {
	m, err := ability[boundary.Measurer](s, "measure what a workload uses")
	if err != nil {
		return nil, err
	}
	u, err := m.Measure(context.Background())
	return &u, err
}

// update puts other limits in force and records them, or leaves those of before.
// Between two lives there is nothing to put them in force for. No life begins
// meanwhile: it would have the limits of before.
func (s *supervisor) update(u *wire.Update) error {
	if u == nil {
		return fmt.Errorf("%w: an update of nothing", wire.ErrProtocol)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.net.wiring.Lock()
	defer s.net.wiring.Unlock()
	had := s.asked().Resources
	merged := had.Merge(u.Resources)
	if err := merged.Coherent(); err != nil {
		return err
	}
	undo := func() error { return nil }
	if changesLimits(u.Resources) {
		can, err := ability[boundary.Updater](s, "change limits while it runs")
		switch {
		case err == nil:
			undo = func() error { return restore(can, had.Before(u.Resources)) }
			if err = can.Update(context.Background(), u.Resources); err != nil && !errors.Is(err, workload.ErrNotRunning) {
				err = errors.Join(err, undo()) // of what came before the one that failed
			}
		case errors.Is(err, workload.ErrNotRunning) && s.snapshot().Status == workload.Restarting:
			err = nil
		}
		if err != nil {
			return err
		}
	}
	if err := s.keepUpdate(u, merged); err != nil {
		return errors.Join(err, undo())
	}
	return nil
}

// keepUpdate records what is in force.
func (s *supervisor) keepUpdate(u *wire.Update, merged workload.Resources) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return workload.ErrNotRunning
	}
	err := s.layout.Change(s.spec.ID, func(c *state.Changes) {
		if changesLimits(u.Resources) {
			c.Resources = &merged
		}
		if u.Restart != nil {
			c.Restart = u.Restart
		}
	})
	if err != nil {
		return err
	}
	s.spec.Resources = merged
	if u.Restart != nil {
		s.spec.Restart = *u.Restart
	}
	s.layout.Happened(&s.spec, "update")
	return nil
}

// restore puts limits in force that were before: nothing is to be looser than what is
// recorded.
func restore(can boundary.Updater, had workload.Resources) error {
	if !changesLimits(had) {
		return nil
	}
	if err := can.Update(context.Background(), had); err != nil {
		return fmt.Errorf("put the limits of before back, without which others are in force until the workload ends: %w", err)
	}
	return nil
}

// changesLimits reports whether anything in r is not left as it is.
func changesLimits(r workload.Resources) bool {
	return r.Memory != nil || r.MemorySwap != nil || r.MemoryReservation != nil || r.Pids != nil || r.OOMScoreAdj != nil ||
		r.CPUs != 0 || r.CPUWeight != 0 || r.CpusetCPUs != "" || r.CpusetMems != "" || r.IOWeight != 0 || len(r.IOLimits) > 0
}

// rename gives the workload another name. s.mu is held all the time: the end
// removes a workload by its name. No life begins meanwhile: it would join its
// networks by the old one, after the engine has put the new one there.
func (s *supervisor) rename(name string) error {
	if err := state.CheckName(name); err != nil {
		return err
	}
	s.net.wiring.Lock()
	defer s.net.wiring.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return workload.ErrNotRunning
	}
	if err := s.layout.Rename(s.spec.ID, s.spec.Name, name); err != nil {
		return err
	}
	old := s.spec.Name
	s.spec.Name = name
	s.layout.Happened(&s.spec, "rename", "oldName", old)
	return nil
}
