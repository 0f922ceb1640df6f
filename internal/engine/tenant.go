package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A tenant is a machine of its own kind of workload: one with no image and no
// process, which other workloads run in. It is recorded, supervised, stopped
// and cleaned up like any other. Its name begins with a character that no
// workload's may have, so the two do not collide.
const tenantMark = "@"

// TenantName is the name under which a tenant's machine is recorded.
func TenantName(tenant string) string { return tenantMark + tenant }

// Tenant returns the tenant whose machine a record is of, "" for a workload.
func (r *Record) Tenant() string {
	if !r.Spec.VM.Machine {
		return ""
	}
	return strings.TrimPrefix(r.Spec.Name, tenantMark)
}

// checkName checks the name of a workload or of a tenant's machine.
func checkName(s *workload.Spec) error {
	if !s.VM.Machine {
		return state.CheckName(s.Name)
	}
	tenant, ok := strings.CutPrefix(s.Name, tenantMark)
	if !ok {
		return fmt.Errorf("a tenant's machine is called %q: want %s and the tenant's name", s.Name, tenantMark)
	}
	return state.CheckName(tenant)
}

// ErrNoTenant tells that there is no tenant of a name.
var ErrNoTenant = errors.New("no such tenant")

// ErrTenantInUse tells that a tenant still has workloads.
var ErrTenantInUse = errors.New("the tenant still has workloads")

// tenantMachine finds a tenant's machine.
func (e *Engine) tenantMachine(tenant string) (workload.ID, error) {
	if err := state.CheckName(tenant); err != nil {
		return "", err
	}
	id, ok := e.layout.Named(TenantName(tenant))
	if !ok {
		return "", fmt.Errorf("%w: %s", ErrNoTenant, tenant)
	}
	return id, nil
}

// reachTenant returns the run-time directory of a tenant's machine, where its
// supervisor listens, and starts the machine if it does not run.
func (e *Engine) reachTenant(ctx context.Context, tenant string) (string, error) {
	id, err := e.tenantMachine(tenant)
	if err != nil {
		return "", err
	}
	if _, _, err = e.call(ctx, id, &wire.Request{Op: wire.OpStatus}, false); errors.Is(err, workload.ErrNotRunning) {
		err = e.StartTenant(ctx, tenant)
		if errors.Is(err, workload.ErrRunning) {
			err = nil // another command was first
		}
	}
	if err != nil {
		return "", fmt.Errorf("tenant %s: %w", tenant, err)
	}
	return e.layout.RunDir(id), nil
}

// tenantAccel tells what executes the instructions of a tenant's guest.
func (e *Engine) tenantAccel(tenant string) (string, error) {
	id, err := e.tenantMachine(tenant)
	if err != nil {
		return "", err
	}
	st, err := e.layout.ReadState(id)
	if err != nil || st.Machine == nil {
		return "", err
	}
	return st.Machine.Accel, nil
}

// StartTenant starts the machine of a tenant, and removes from its disk what
// belongs to workloads that are no more. The error wraps ErrNoTenant or
// workload.ErrRunning, among others.
func (e *Engine) StartTenant(ctx context.Context, tenant string) error {
	id, err := e.tenantMachine(tenant)
	if err != nil {
		return err
	}
	if _, err := e.Start(ctx, string(id), nil); err != nil {
		return err
	}
	keep, err := e.tenantData(tenant)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tidying)
	defer cancel()
	e.warn(e.agent(id).KeepData(ctx, keep))
	return nil
}

// tidying is how long a guest may take to remove what nobody wants any more.
// What is left is removed at the next start of its machine.
const tidying = time.Minute

// tenantData returns the workloads whose files on a tenant's disk stay: its own, and
// those whose record cannot be read, as of them it is not known.
func (e *Engine) tenantData(tenant string) (keep []workload.ID, err error) {
	all, err := e.layout.All()
	for _, id := range all {
		if s, err := e.layout.ReadSpec(id); err != nil || s.VM.Tenant == tenant {
			keep = append(keep, id)
		}
	}
	return keep, err
}

// InspectTenant returns the record of a tenant's machine.
func (e *Engine) InspectTenant(ctx context.Context, tenant string) (*Record, error) {
	id, err := e.tenantMachine(tenant)
	if err != nil {
		return nil, err
	}
	return e.record(ctx, id)
}

// UpdateTenant changes limits of a tenant's machine, as Update does those of a
// workload.
func (e *Engine) UpdateTenant(ctx context.Context, tenant string, r workload.Resources) error {
	id, err := e.tenantMachine(tenant)
	if err != nil {
		return err
	}
	if err := e.update(ctx, id, r, nil); err != nil {
		return fmt.Errorf("update tenant %s: %w", tenant, err)
	}
	return nil
}

// StopTenant ends a tenant's workloads and shuts its machine down. A workload
// that does not end by itself does so with the machine.
func (e *Engine) StopTenant(ctx context.Context, tenant string) error {
	id, err := e.tenantMachine(tenant)
	if err != nil {
		return err
	}
	workloads, err := e.TenantWorkloads(ctx, tenant)
	if err != nil {
		return err
	}
	for _, w := range workloads {
		if err := e.Stop(ctx, string(w.Spec.ID), nil); err != nil && !errors.Is(err, workload.ErrNotFound) {
			if ctx.Err() != nil {
				return err
			}
			e.warn(err)
		}
	}
	return e.Stop(ctx, string(id), nil)
}

// TenantWorkloads returns the workloads of a tenant, oldest first.
func (e *Engine) TenantWorkloads(ctx context.Context, tenant string) ([]*Record, error) {
	all, err := e.List(ctx)
	if err != nil {
		return nil, err
	}
	var its []*Record
	for _, r := range all {
		if r.Spec.VM.Tenant == tenant {
			its = append(its, r)
		}
	}
	return its, nil
}

// agent speaks to the agent in a tenant's machine.
func (e *Engine) agent(machine workload.ID) *client.Client {
	return client.New(wire.Host{Dir: e.layout.RunDir(machine)}.Dial)
}

// removeData removes what a workload of a tenant left on the tenant's disk. If
// the machine does not run, its next start does.
func (e *Engine) removeData(ctx context.Context, s *workload.Spec) error {
	if s.VM.Tenant == "" {
		return nil
	}
	id, err := e.tenantMachine(s.VM.Tenant)
	if errors.Is(err, ErrNoTenant) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tidying)
	defer cancel()
	if err := e.agent(id).RemoveData(ctx, s.ID); err != nil && !errors.Is(err, client.ErrGuestLost) && !ended(err) {
		return fmt.Errorf("remove the files of workload %s from its tenant's disk: %w", s.Name, err)
	}
	return nil
}

// checkDeserted refuses to remove a tenant's machine before its workloads.
func (e *Engine) checkDeserted(ctx context.Context, s *workload.Spec) error {
	if !s.VM.Machine {
		return nil
	}
	tenant := strings.TrimPrefix(s.Name, tenantMark)
	left, err := e.TenantWorkloads(ctx, tenant)
	if err != nil || len(left) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s has %d, such as %s", ErrTenantInUse, tenant, len(left), left[0].Spec.Name)
}

// RemoveTenant removes a tenant's machine and disk. With force it ends and
// removes the tenant's workloads first; otherwise one that is left gives
// ErrTenantInUse, and a machine that runs workload.ErrRunning.
func (e *Engine) RemoveTenant(ctx context.Context, tenant string, force bool) error {
	id, err := e.tenantMachine(tenant)
	if err != nil {
		return err
	}
	if force {
		// The machine first: its guest, which may not want to, is not asked for
		// anything, and its disk goes anyway.
		if err := e.Kill(ctx, string(id), syscall.SIGKILL); err != nil && !absent(err) && !ended(err) {
			return err
		}
		workloads, err := e.TenantWorkloads(ctx, tenant)
		if err != nil {
			return err
		}
		for _, w := range workloads {
			if err := e.Remove(ctx, string(w.Spec.ID), true); err != nil {
				return err
			}
		}
	}
	return e.Remove(ctx, string(id), force)
}
