package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// fillMachine prepares what a virtual machine is made from: the image as a
// disk, a writable disk, a kernel. A workload of a tenant writes to the
// tenant's disk and runs on the tenant's kernel; a tenant's machine has no image.
func (e *Engine) fillMachine(ctx context.Context, s *workload.Spec, needs boundary.Needs, p *prepared) error {
	m := &boundary.Machine{}
	p.state.Machine = m
	if !s.VM.Machine {
		making, made := trace.Begin(ctx, "image's disk made")
		disk, release, err := e.cfg.Machines.Disk(making, s.Image)
		made.End()
		if err != nil {
			return err
		}
		m.Image, p.release = disk.Path, release
		if err := checkIDs(needs, disk.MaxID, p); err != nil {
			return err
		}
		state.Did("create: image disk made")
	}
	if s.VM.Tenant != "" {
		_, err := e.tenantMachine(s.VM.Tenant)
		return err
	}
	// Early, so that a kernel that does not exist fails the command that names it.
	if err := e.startMachine(ctx, s, m); err != nil {
		return err
	}
	defer trace.Step(ctx, "writable disk made").End()
	var err error
	if m.Data, m.Blank, err = e.makeData(ctx, filepath.Join(e.layout.Dir(s.ID), "data"), s.VM.Disk); err != nil {
		return err
	}
	m.GuestIDs = boundary.GuestIDs
	state.Did("create: data disk made")
	return nil
}

// makeData makes a writable disk, and returns its path and its Machine.Blank.
func (e *Engine) makeData(ctx context.Context, path string, size int64) (data, blank string, err error) {
	if err := e.cfg.Machines.DataDisk(ctx, path, size); err != nil {
		return "", "", fmt.Errorf("make the writable disk: %w", err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", "", err
	}
	blank, err = sys.Identity(fi)
	return path, blank, err
}

// readyMachine makes sure, right before a start, that a workload's machine can
// be had: its kernel, which may have been replaced by an update since the
// workload was made, or its tenant's machine, which is started if need be.
func (e *Engine) readyMachine(ctx context.Context, s *workload.Spec, st *state.State) (err error) {
	m := st.Machine
	if m == nil {
		return nil
	}
	if s.VM.Tenant != "" {
		if m.Socket, err = e.reachTenant(ctx, s.VM.Tenant); err != nil {
			return err
		}
		// What runs the tenant's machine runs the workload: whoever looks at the
		// workload has to see it.
		if m.Accel, err = e.tenantAccel(s.VM.Tenant); err != nil {
			return err
		}
	}
	if err := e.startMachine(ctx, s, m); err != nil {
		return err
	}
	return e.readyTemplate(ctx, s, st)
}

// readyTemplate makes sure that there is a machine which has booted and was saved,
// for a workload's own to go on from.
func (e *Engine) readyTemplate(ctx context.Context, s *workload.Spec, st *state.State) error {
	m := st.Machine
	if m == nil || s.VM.Tenant != "" {
		return nil
	}
	m.Templates = ""
	if s.VM.NoTemplate {
		return nil
	}
	ctx, finding := trace.Begin(ctx, "template found or made")
	defer finding.End()
	return e.cfg.Machines.Template(ctx, *s, boundary.Prepared{
		Machine: m, IDBase: st.IDBase, IDCount: st.IDCount, Files: st.Files, Cgroup: e.cfg.CgroupParent,
	})
}

// startMachine settles what is settled right before a start.
func (e *Engine) startMachine(ctx context.Context, s *workload.Spec, m *boundary.Machine) error {
	ctx, settling := trace.Begin(ctx, "kernel and accelerator chosen")
	defer settling.End()
	return e.cfg.Machines.Start(ctx, s.VM, m)
}

// explainMachine fills in what Create would, and makes nothing that belongs to
// the workload.
func (e *Engine) explainMachine(ctx context.Context, s workload.Spec, p *boundary.Prepared) (release func(), err error) {
	if e.cfg.Machines == nil {
		return nil, fmt.Errorf("%w: boundary %q wants a disk image", workload.ErrUnsupported, s.Boundary)
	}
	disk, release, err := e.cfg.Machines.Disk(ctx, s.Image)
	if err != nil {
		return nil, err
	}
	m := &boundary.Machine{Image: disk.Path, Data: filepath.Join(e.layout.Dir(s.ID), "data")}
	p.Machine = m
	if s.VM.Tenant != "" {
		id, err := e.tenantMachine(s.VM.Tenant)
		if err != nil {
			release()
			return nil, err
		}
		m.Socket = e.layout.RunDir(id)
		return release, nil
	}
	if err := e.cfg.Machines.Start(ctx, s.VM, m); err != nil {
		release()
		return nil, err
	}
	m.Templates = "templates" // not looked at
	return release, nil
}
