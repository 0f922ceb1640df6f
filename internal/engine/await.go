package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/rotated"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Conditions are what WaitFor can wait for: the states of a workload, what its
// health checks say, and that it is removed. The words are Podman's; "stopped"
// is "exited", and "configured" "created".
var Conditions = []string{
	"created", "configured", "running", "paused", "restarting", "exited", "stopped", "removing",
	workload.Healthy, workload.Unhealthy,
}

// ErrCondition tells that what was waited for cannot come any more.
var ErrCondition = errors.New("it will not come")

// holds reports whether a condition holds for a record.
func holds(condition string, r *Record) bool {
	switch condition {
	case "configured":
		condition = string(workload.Created)
	case "stopped":
		condition = string(workload.Exited)
	case workload.Healthy, workload.Unhealthy:
		return r.Health != nil && r.Health.Status == condition && r.Status == workload.Running
	}
	return condition == string(r.Status)
}

// hopeless tells why a condition will not come about: nil if it may.
func hopeless(condition string, r *Record) error {
	if condition != workload.Healthy && condition != workload.Unhealthy {
		return nil
	}
	if !r.Spec.Health.Checked() {
		return fmt.Errorf("%w: it has no health check", ErrCondition)
	}
	if r.Status == workload.Exited && r.Exit != nil {
		return fmt.Errorf("%w: it has ended with exit code %d", ErrCondition, r.Exit.Code)
	}
	return nil
}

// WaitFor returns when one of the conditions holds for a workload, with the
// record that shows it; nil when it was removed and that is what was waited for.
// The error wraps ErrCondition when none of them can come about any more: the
// workload has no health check, or has ended before it was healthy.
func (e *Engine) WaitFor(ctx context.Context, ref string, conditions ...string) (*Record, error) {
	id, err := e.layout.Find(ref)
	if err != nil {
		return nil, about("wait for", ref, err)
	}
	changes, err := newChanges(e.layout.Dir(id))
	if err != nil {
		return nil, about("wait for", ref, err)
	}
	defer changes.close()
	for {
		r, err := e.record(ctx, id)
		if errors.Is(err, workload.ErrNotFound) && slices.Contains(conditions, "removing") {
			return nil, nil
		}
		if err != nil {
			return nil, about("wait for", ref, err)
		}
		var no error
		for _, c := range conditions {
			if holds(c, r) {
				return r, nil
			}
			h := hopeless(c, r)
			if h == nil {
				no = nil
				break
			}
			no = h
		}
		if no != nil {
			return nil, about("wait for", ref, no)
		}
		if err := e.awaitChange(ctx, r, changes); err != nil {
			return nil, about("wait for", ref, err)
		}
	}
}

func running(r *Record) bool { return r.Status != workload.Created && r.Status != workload.Exited }

// awaitChange returns when a workload's record may have changed: when one of its
// files has, or when its supervisor is gone.
func (e *Engine) awaitChange(ctx context.Context, r *Record, changes *changes) error {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{})
	if running(r) {
		go func() {
			e.wait(wctx, string(r.Spec.ID), wire.UntilStopped) // any error is a reason to look again
			close(gone)
		}()
	}
	select {
	case <-changes.some:
		return nil
	case <-gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// changes tells that a file of a directory may have been replaced.
type changes struct {
	watch *rotated.Watch
	end   context.CancelFunc
	some  chan struct{} // holds one token
	done  chan struct{}
}

func newChanges(dir string) (*changes, error) {
	ctx, cancel := context.WithCancel(context.Background())
	w, err := rotated.NewWatch(ctx, dir, syscall.IN_MOVED_TO|syscall.IN_MOVE_SELF|syscall.IN_DELETE_SELF)
	if err != nil {
		cancel()
		if errors.Is(err, os.ErrNotExist) {
			err = workload.ErrNotFound
		}
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	c := &changes{watch: w, end: cancel, some: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for w.Wait() == nil {
			select {
			case c.some <- struct{}{}:
			default:
			}
		}
	}()
	return c, nil
}

func (c *changes) close() {
	c.end()
	<-c.done
	c.watch.Close()
}
