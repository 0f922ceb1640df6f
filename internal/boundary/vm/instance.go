package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// remains is everything that Create makes for one workload and Delete removes.
type remains struct {
	b       Boundary
	id      workload.ID
	dir     string
	record  record
	idle    bool // nothing ran that the guest would have to write back
	cgroup  *cgroup.Manager
	machine *machine // the workload's own, nil in a tenant's
	release func()   // of the image's disk in a tenant's machine
	volumes []*fileserver.Server
	inner   *client.Instance
}

// Delete ends the workload, and the machine if it is the workload's own.
func (r *remains) Delete(ctx context.Context) error {
	var err error
	switch {
	case r.machine != nil:
		if r.record.Keep && !r.idle {
			r.machine.powerOff(ctx)
		}
		err = r.machine.kill()
	case r.record.Socket != "":
		err = r.leave(ctx)
	}
	for _, v := range r.volumes {
		v.Close()
	}
	if r.cgroup != nil {
		if err == nil {
			err = r.cgroup.Kill(ctx)
		}
		if err == nil {
			err = r.cgroup.Destroy(ctx)
		}
	}
	if r.release != nil {
		r.release()
		r.release = nil
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(r.dir)
}

// leave removes the workload from its tenant's machine. A machine that is gone
// took it along.
func (r *remains) leave(ctx context.Context) error {
	if r.b.Reach == nil {
		return nil
	}
	c := clientOf(r.b.Reach(r.record.Socket))
	err := c.Delete(ctx, r.id)
	if err == nil && !r.record.Keep {
		err = c.RemoveData(ctx, r.id)
	}
	if errors.Is(err, client.ErrGuestLost) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, workload.ErrNotRunning) {
		return nil
	}
	return err
}

// place asks the agent of a machine for the workload.
func place(ctx context.Context, s workload.Spec, p boundary.Prepared, r *remains, host boundary.Host, image string) (boundary.Instance, error) {
	c := clientOf(host)
	req := protocol.Create{Spec: inside(s), Image: image, IDBase: p.IDBase, IDCount: p.IDCount, Files: map[string][]byte{}}
	for target, file := range p.Files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		req.Files[target] = b
	}
	var err error
	if req.Volumes, err = r.serveVolumes(ctx, s, p, c); err != nil {
		return nil, err
	}
	if r.inner, err = c.Create(ctx, req, p.Stdio, p.Notice); err != nil {
		return nil, r.blame(err)
	}
	return &instance{Instance: r.inner, remains: r}, nil
}

// blame says why a guest that was lost is gone.
func (r *remains) blame(err error) error {
	if !errors.Is(err, client.ErrGuestLost) {
		return err
	}
	if r.machine != nil {
		return r.machine.fault(err)
	}
	return fmt.Errorf("the tenant's machine has ended: %w", err)
}

// instance is a workload in a machine.
type instance struct {
	*client.Instance
	*remains
}

var (
	_ boundary.Instance = (*instance)(nil)
	_ boundary.Pauser   = (*instance)(nil)
)

// Wait waits for the workload, or for the end of its machine.
func (i *instance) Wait(ctx context.Context) (workload.Exit, error) {
	e, err := i.Instance.Wait(ctx)
	return e, i.blame(err)
}

// Signal asks the agent. A guest that does not answer to SIGKILL is ended with
// its machine, if that is the workload's own.
func (i *instance) Signal(ctx context.Context, sig syscall.Signal) error {
	actx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	err := i.Instance.Signal(actx, sig)
	if err == nil || sig != syscall.SIGKILL || errors.Is(err, workload.ErrNotRunning) || i.machine == nil {
		return err
	}
	i.machine.vmm.Kill()
	return nil
}

// Exec runs another process in the workload.
func (i *instance) Exec(ctx context.Context, p workload.Process, stdio boundary.Stdio) (boundary.Process, error) {
	proc, err := i.Instance.Exec(ctx, p, stdio)
	if err != nil {
		return nil, i.blame(err)
	}
	return proc, nil
}

// Start lets the workload's program run.
func (i *instance) Start(ctx context.Context) error { return i.blame(i.Instance.Start(ctx)) }

// PID is the VMM's process, 0 in a tenant's machine.
func (i *instance) PID() int {
	if i.machine == nil {
		return 0
	}
	return i.machine.vmm.Pid()
}

// Delete removes the workload and all that was made for it.
func (i *instance) Delete(ctx context.Context) error { return i.remains.Delete(ctx) }

// tenant is a tenant's machine as an instance: its first process is the guest.
type tenant struct {
	*remains
	mu      sync.Mutex
	stopped bool // it was asked to end
}

var _ boundary.Host = (*tenant)(nil)

// Dial and Insert are the machine's.
func (t *tenant) Dial(ctx context.Context) (io.ReadWriteCloser, error) { return t.machine.Dial(ctx) }

// Insert shows the guest an image as a disk.
func (t *tenant) Insert(ctx context.Context, image string) (string, func(), error) {
	return t.machine.Insert(ctx, image)
}

// Start does nothing: the machine runs.
func (t *tenant) Start(context.Context) error { return nil }

// Exec is refused: nothing runs beside the workloads.
func (t *tenant) Exec(context.Context, workload.Process, boundary.Stdio) (boundary.Process, error) {
	return nil, fmt.Errorf("%w: a tenant's machine runs workloads only", workload.ErrUnsupported)
}

// Wait returns when the machine has ended.
func (t *tenant) Wait(ctx context.Context) (workload.Exit, error) {
	select {
	case <-t.machine.vmm.Done():
	case <-ctx.Done():
		return workload.Exit{}, ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return workload.Exit{}, nil
	}
	return workload.Exit{}, t.machine.fault(errors.New("the machine has ended"))
}

// Signal shuts the machine down, or ends it at once with SIGKILL.
func (t *tenant) Signal(ctx context.Context, sig syscall.Signal) error {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	if sig == syscall.SIGKILL {
		t.machine.vmm.Kill()
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return clientOf(t.machine).PowerOff(ctx)
}

// Terminal is nil, PID the VMM's.
func (t *tenant) Terminal() boundary.Terminal { return nil }

// PID is the VMM's process.
func (t *tenant) PID() int { return t.machine.vmm.Pid() }

// lost is what Open finds: only Signal and Delete mean anything.
type lost struct{ *remains }

func (lost) Start(context.Context) error { return workload.ErrNotRunning }
func (lost) Exec(context.Context, workload.Process, boundary.Stdio) (boundary.Process, error) {
	return nil, workload.ErrNotRunning
}
func (lost) Wait(context.Context) (workload.Exit, error) {
	return workload.Exit{}, workload.ErrNotRunning
}

// Signal ends what is left, whatever the signal.
func (l lost) Signal(ctx context.Context, _ syscall.Signal) error {
	if l.cgroup == nil {
		return workload.ErrNotRunning
	}
	return l.cgroup.Kill(ctx)
}
func (lost) Terminal() boundary.Terminal { return nil }
func (lost) PID() int                    { return 0 }
