// Package vm is the boundary "vm": a virtual machine with a kernel of its own.
// A workload gets a machine to itself, or shares one with the other workloads
// of its tenant; inside, the guest's agent makes it a hardened container with
// the code that makes containers on the host.
//
//	supervisor                                  guest
//	  instance ── client ── stream ──────────── agent ── container
//	  machine  ── qemu ──── console, QMP          kernel
//	  volume   ── file server ── stream ──────── FUSE
//
// What the guest says is hostile input. The host never waits for it without a
// limit, except for a workload to end, and ends a machine by its cgroup.
package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Boundary makes virtual machines.
type Boundary struct {
	// Reach returns the machine of a tenant by Prepared.Machine.Socket. Without it
	// there are no tenants.
	Reach func(socket string) boundary.Host
	// BootTimeout is how long a guest may take until its agent answers; 0 stands
	// for 30 seconds, and four minutes under emulation or in a virtual host.
	BootTimeout time.Duration

	waiting *waiting // what the first Create takes; or nil
}

var _ boundary.Explainer = Boundary{}

// Name returns "vm".
func (Boundary) Name() string { return "vm" }

// Check wants root and QEMU.
func (Boundary) Check(context.Context) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: virtual machines need root in this version", workload.ErrUnsupported)
	}
	return qemu.Present()
}

// Needs asks for a disk, and for a range of IDs: the workload's in the guest,
// whose first is the VMM's on the host.
func (Boundary) Needs(workload.Spec) boundary.Needs {
	return boundary.Needs{Root: boundary.Disk, IDRange: true, Network: boundary.Tap}
}

// The files of this package in a workload's run-time directory.
const (
	ownDirectory = "vm"
	recordFile   = "made" // written before anything is made that outlives the process
)

// record is what Open must know to clean up.
type record struct {
	Cgroup string `json:"cgroup"`
	Socket string `json:"socket,omitempty"`
	// Keep says that what the workload wrote outlives its end.
	Keep bool `json:"keep,omitempty"`
}

func (r record) write(dir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, recordFile), b, 0o600)
}

// Create makes the machine of s, or finds its tenant's, and the workload in it.
func (b Boundary) Create(ctx context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	if p.Machine == nil {
		return nil, errors.New("nothing is prepared that a machine could be made from")
	}
	if err := check(s); err != nil {
		return nil, err
	}
	if s.VM.Tenant != "" && b.Reach == nil {
		return nil, fmt.Errorf("%w: tenants", workload.ErrUnsupported)
	}
	if s.VM.System && s.VM.Tenant != "" {
		return nil, fmt.Errorf("%w: a whole system in the machine of a tenant", workload.ErrUnsupported)
	}
	if err := checkNICs(p); err != nil {
		return nil, err
	}
	s = withModules(s, p.Machine)
	r, err := b.begun(s, p)
	if err != nil {
		return nil, err
	}
	i, err := b.create(ctx, s, p, r)
	if err != nil {
		// Nothing ran this time. What an earlier run wrote stays.
		r.idle = true
		return nil, errors.Join(err, r.Delete(context.WithoutCancel(ctx)))
	}
	return i, nil
}

func (b Boundary) create(ctx context.Context, s workload.Spec, p boundary.Prepared, r *remains) (boundary.Instance, error) {
	z, err := sizeOf(s, qemu.Accel(p.Machine.Accel), p.Machine.Socket != "")
	if err != nil {
		return nil, err
	}
	r.size = z
	if r.machine != nil { // it has waited in its cgroup
		limits, err := z.limits(s)
		if err != nil {
			return nil, err
		}
		if err := r.cgroup.Set(limits); err != nil {
			return nil, err
		}
		if i, err := b.fromWaiting(ctx, s, p, r); i != nil || err != nil {
			return i, err
		}
	} else if err := r.enclose(s, p, z); err != nil {
		return nil, err
	}
	if s.VM.Tenant != "" {
		return b.join(ctx, s, p, r)
	}
	c := config(s, p, r.dir, z)
	templates := b.source(s, p, c)
	if i, err := b.fromImage(ctx, templates, s, p, r, c); i != nil || err != nil {
		return i, err
	}
	if r.machine, err = b.begin(ctx, templates, c, r.cgroup, p.Notice); err != nil {
		return nil, err
	}
	if s.VM.Machine {
		return &tenant{remains: r}, nil
	}
	var devices []string
	for _, n := range r.machine.nics {
		devices = append(devices, n.device)
	}
	return place(ctx, s, p, r, r.machine, placed{"image0", devices})
}

// enclose makes the cgroup, after it has written down that there will be one.
func (r *remains) enclose(s workload.Spec, p boundary.Prepared, z size) error {
	m, err := z.group(p.Cgroup, s)
	if err != nil {
		return err
	}
	if err := r.record.write(r.dir); err != nil {
		return err
	}
	r.cgroup = m
	return m.Create()
}

// join makes the workload in its tenant's machine.
func (b Boundary) join(ctx context.Context, s workload.Spec, p boundary.Prepared, r *remains) (boundary.Instance, error) {
	host := b.Reach(p.Machine.Socket)
	var serial string
	err := within(ctx, createTimeout, func(ctx context.Context) (err error) {
		serial, r.release, err = host.Insert(ctx, p.Machine.Image)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tenant %s: %w", s.VM.Tenant, err)
	}
	devices, err := r.plug(ctx, p.NICs, p.Taps, host)
	if err != nil {
		return nil, fmt.Errorf("tenant %s: %w", s.VM.Tenant, err)
	}
	return place(ctx, s, p, r, host, placed{serial, devices})
}

// Open finds what is left of a workload whose supervisor is gone.
func (b Boundary) Open(_ context.Context, id workload.ID, dir string) (boundary.Instance, error) {
	r := &remains{b: b, id: id, dir: filepath.Join(dir, ownDirectory)}
	text, err := os.ReadFile(filepath.Join(r.dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return &lost{r}, nil // it never came to have a process
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(text, &r.record) == nil && r.record.Cgroup != "" { // else the write was cut short, before the cgroup was made
		if r.cgroup, err = cgroup.Load(r.record.Cgroup, cgroup.Options{}); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return &lost{r}, nil
}

// Explain prints the VMM's command and what confines it.
func (b Boundary) Explain(s workload.Spec, p boundary.Prepared, w io.Writer) error {
	if p.Machine == nil {
		return errors.New("nothing is prepared that a machine could be made from")
	}
	if err := check(s); err != nil {
		return err
	}
	if s.VM.Tenant != "" {
		_, err := fmt.Fprintf(w, "# A container in the machine of tenant %s, made by the guest's agent.\n"+
			"# `bulkhead explain` with the boundary container shows the steps; they are the same there.\n", s.VM.Tenant)
		return err
	}
	z, err := sizeOf(withModules(s, p.Machine), qemu.Accel(p.Machine.Accel), false)
	if err != nil {
		return err
	}
	m, err := z.group(p.Cgroup, s)
	if err != nil {
		return err
	}
	p, assumed := explainNICs(s, p)
	cfg := config(s, p, filepath.Join(p.Dir, ownDirectory), z)
	cfg.Cgroup = m
	fmt.Fprintf(w, "# A virtual machine: processors %d, memory %d MiB, held by the cgroup %s.\n", z.cpus, z.ram>>20, p.Cgroup)
	if cfg.Accel == qemu.TCG {
		fmt.Fprintf(w, "# %s\n", qemu.NoBoundary)
	}
	if assumed {
		fmt.Fprintln(w, "# Its network interfaces get their MAC and IP addresses when it starts: those below stand for them.")
	}
	if p.Machine.Templates != "" && !s.VM.NoTemplate {
		fmt.Fprintln(w, "# It goes on from a template, a machine that has booted and was saved. With --no-template it boots.")
		cfg = clone(cfg, nil, os.Stdin) // any file: none is opened
	}
	if err := qemu.Explain(w, cfg); err != nil {
		return err
	}
	if s.VM.System {
		_, err = fmt.Fprint(w, "\n# In the guest its first process becomes the image's init, with every capability and no filter.\n")
		return err
	}
	_, err = fmt.Fprint(w, "\n# In the guest its agent makes the workload as `bulkhead explain` with the boundary container shows.\n")
	return err
}

// clientOf talks to the agent of a machine.
func clientOf(h boundary.Host) *client.Client { return client.New(h.Dial) }
