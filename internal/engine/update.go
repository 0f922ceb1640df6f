package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/network"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// change lets a supervisor perform req, or f, with the workload's lock held,
// where there is none. The reply is nil then.
func (e *Engine) change(ctx context.Context, id workload.ID, req *wire.Request, f func(*workload.Spec) error) (reply *wire.Reply, err error) {
	err = state.Retry(ctx, func() error {
		k, err := e.lockIdle(ctx, id)
		if errors.Is(err, workload.ErrRunning) {
			_, r, err := e.call(ctx, id, req, false)
			if errors.Is(err, workload.ErrNotRunning) {
				return state.ErrLocked // it is about to end, or to live again
			}
			reply = r
			return err
		}
		if err != nil {
			return err
		}
		defer k.Unlock()
		spec, err := e.layout.ReadSpec(id)
		if err != nil {
			return err
		}
		return f(spec)
	})
	return reply, err
}

// Update changes limits and the restart policy of a workload, running or not.
// Fields of r that are nil or zero stay as they are, and so does the policy where
// restart is nil. What cannot change while the workload runs gives an error that
// wraps workload.ErrUnsupported and says why; in one that does not run it takes
// effect at the next start.
func (e *Engine) Update(ctx context.Context, ref string, r workload.Resources, restart *workload.Restart) error {
	id, err := e.layout.Find(ref)
	if err == nil {
		err = e.update(ctx, id, r, restart)
	}
	if err != nil {
		return about("update", ref, err)
	}
	return nil
}

func (e *Engine) update(ctx context.Context, id workload.ID, r workload.Resources, restart *workload.Restart) error {
	s, err := e.layout.ReadSpec(id)
	if errors.Is(err, os.ErrNotExist) {
		return workload.ErrNotFound // it was removed meanwhile
	}
	if err != nil {
		return err
	}
	if s.AutoRemove && restart != nil && restart.Policy != "" {
		return errors.New("it is removed at its end, so it cannot be restarted")
	}
	req := &wire.Request{Op: wire.OpUpdate, Update: &wire.Update{Resources: r, Restart: restart}}
	_, err = e.change(ctx, id, req, func(s *workload.Spec) error {
		merged := s.Resources.Merge(r)
		if err := merged.Coherent(); err != nil {
			return err
		}
		err := e.layout.Change(id, func(c *state.Changes) {
			c.Resources = &merged
			if restart != nil {
				c.Restart = restart
			}
		})
		if err == nil {
			e.layout.Happened(s, "update")
		}
		return err
	})
	return err
}

// Rename gives a workload another name, in its networks too. The error wraps
// workload.ErrNameTaken, among others. A tenant's machine keeps its own, by which
// the tenant's workloads find it, and which protects their disk:
// workload.ErrUnsupported.
func (e *Engine) Rename(ctx context.Context, ref, name string) error {
	id, err := e.layout.Find(ref)
	if err != nil {
		return about("rename", ref, err)
	}
	old, err := e.layout.ReadSpec(id)
	if err == nil && old.VM.Machine {
		err = fmt.Errorf("%w: it is the machine of tenant %s, which keeps its name", workload.ErrUnsupported, strings.TrimPrefix(old.Name, tenantMark))
	}
	if err == nil {
		err = state.CheckName(name)
	}
	if err != nil {
		return about("rename", ref, err)
	}
	if old.Name == name {
		return about("rename", ref, fmt.Errorf("%w: %q is its name already", workload.ErrNameTaken, name))
	}
	_, err = e.change(ctx, id, &wire.Request{Op: wire.OpRename, Name: name}, func(s *workload.Spec) error {
		old := s.Name
		if err := e.layout.Rename(id, old, name); err != nil {
			return err
		}
		s.Name = name
		e.layout.Happened(s, "rename", "oldName", old)
		return nil
	})
	if err == nil && e.cfg.Networks != nil {
		err = e.renameInNetworks(ctx, id)
	}
	if err != nil {
		return about("rename", ref, err)
	}
	return nil
}

// renameInNetworks tells a workload's networks what it is called.
func (e *Engine) renameInNetworks(ctx context.Context, id workload.ID) error {
	s, err := e.layout.ReadSpec(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was removed meanwhile
	}
	if err != nil {
		return err
	}
	return e.cfg.Networks.Rename(ctx, network.Request{ID: id, Name: s.Name, Hostname: s.Hostname, Networks: s.Networks})
}

// Restart stops a workload, as StopBy does, and starts it again. One that does
// not run is started; that another command does so meanwhile is no error. One that
// is removed at its end is not, and keeps what it wrote.
func (e *Engine) Restart(ctx context.Context, ref string, timeout *time.Duration, sig syscall.Signal) error {
	id, err := e.layout.Find(ref)
	if err != nil {
		return about("restart", ref, err)
	}
	r, err := e.record(ctx, id)
	if err != nil {
		return about("restart", ref, err)
	}
	if r.Spec.AutoRemove && r.Status != workload.Created {
		req := &wire.Request{Op: wire.OpRestart, Timeout: r.Spec.StopTimeout, Signal: sig}
		if timeout != nil {
			req.Timeout = *timeout
		}
		if _, _, err := e.call(ctx, id, req, false); err != nil {
			return about("restart", ref, err)
		}
		e.layout.Happened(&r.Spec, "restart")
		return nil
	}
	if err := e.StopBy(ctx, string(id), timeout, sig); err != nil {
		return err
	}
	s, err := e.Start(ctx, string(id), nil)
	if errors.Is(err, workload.ErrRunning) {
		return nil // it has ended, and somebody was faster
	}
	if err == nil {
		e.layout.Happened(&s.Record.Spec, "restart")
	}
	return err
}

// Measure tells what a running workload uses. The error wraps
// workload.ErrNotRunning where nothing runs.
func (e *Engine) Measure(ctx context.Context, ref string) (workload.Usage, error) {
	reply, err := e.ask(ctx, ref, &wire.Request{Op: wire.OpMeasure})
	if err != nil {
		return workload.Usage{}, about("measure", ref, err)
	}
	if reply.Usage == nil {
		return workload.Usage{}, fmt.Errorf("%w: figures without figures", wire.ErrProtocol)
	}
	return *reply.Usage, nil
}

// Describe describes the processes of a running workload, with the IDs that they
// have inside.
func (e *Engine) Describe(ctx context.Context, ref string) ([]workload.ProcessInfo, error) {
	reply, err := e.ask(ctx, ref, &wire.Request{Op: wire.OpDescribe})
	if err != nil {
		return nil, about("list processes of", ref, err)
	}
	return reply.Described, nil
}
