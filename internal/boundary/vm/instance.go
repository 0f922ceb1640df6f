package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
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
	size    size
	machine *machine  // the workload's own, nil in a tenant's
	release func()    // of the image's disk in a tenant's machine
	plugs   []plugged // the network devices there
	volumes []*fileserver.Server
	inner   *client.Instance
	kept    atomic.Bool // Keep was called
	forced  atomic.Bool // the guest did not end it, so we did
	ended   atomic.Bool // Delete ended a machine that ran until then
}

// Delete ends the workload, and the machine if it is the workload's own.
func (r *remains) Delete(ctx context.Context) error {
	var err error
	switch {
	case r.machine != nil:
		select {
		case <-r.machine.vmm.Done():
		default:
			r.ended.Store(true)
		}
		if r.keeps() && !r.idle {
			r.machine.powerOff(ctx)
		}
		err = r.machine.kill()
	case r.record.Socket != "":
		err = r.leave(ctx)
	}
	r.closeVolumes()
	if r.cgroup != nil {
		if err == nil {
			err = r.cgroup.Kill(ctx)
		}
		if err == nil {
			err = r.cgroup.Destroy(ctx)
		}
	}
	// Whatever the guest still holds of them: frames go nowhere any more.
	for _, p := range r.plugs {
		p.release()
	}
	r.plugs = nil
	if r.release != nil {
		r.release()
		r.release = nil
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(r.dir)
}

// closeVolumes ends the file servers.
func (r *remains) closeVolumes() {
	for _, v := range r.volumes {
		v.Close()
	}
	r.volumes = nil
}

// Keep keeps the workload's files when it is deleted.
func (r *remains) Keep() { r.kept.Store(true) }

// keeps reports whether what the workload wrote outlives Delete.
func (r *remains) keeps() bool { return r.record.Keep || r.kept.Load() }

// leave removes the workload from its tenant's machine. A machine that is gone
// took it along. One that does not answer, or lies, may go on running it for as
// long as the machine lives, but with nothing of the host's: no stream, volume
// or name. Its network devices are nobody else's before the guest has them back:
// see Plug. It must not hold up this command, and every later one that would try
// again.
func (r *remains) leave(ctx context.Context) error {
	if r.b.Reach == nil {
		return nil
	}
	c := clientOf(r.b.Reach(r.record.Socket))
	limit, remove := killTimeout, c.Open(r.id).Delete
	if r.inner != nil && !r.forced.Load() {
		limit, remove = answerTimeout, r.inner.Delete
	}
	err := within(ctx, limit, remove)
	if r.inner != nil {
		r.inner.Abandon() // its streams, if they are still there: to the agent they are its life
	}
	if err == nil && !r.keeps() {
		err = within(ctx, limit, func(ctx context.Context) error { return c.RemoveData(ctx, r.id) })
	}
	if errors.Is(err, errSilent) || errors.Is(err, client.ErrGuestLost) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, workload.ErrNotRunning) {
		return nil
	}
	return err
}

// placed is what of a machine's a workload gets: the serial number of its
// image's disk, and the network devices by their own MAC addresses.
type placed struct {
	image   string
	devices []string
}

// place asks the agent of a machine for the workload.
func place(ctx context.Context, s workload.Spec, p boundary.Prepared, r *remains, host boundary.Host, its placed) (boundary.Instance, error) {
	c := clientOf(host)
	req := protocol.Create{Spec: inside(s), Image: its.image, Alone: r.machine != nil && !s.VM.System && p.Machine.GuestIDs != 0}
	for i, n := range p.NICs {
		req.NICs = append(req.NICs, inGuest(n, its.devices[i]))
	}
	if !s.Namespaces.HostUser && !s.VM.System { // else all IDs of the guest
		req.IDBase, req.IDCount = p.IDBase, p.IDCount
		if req.Alone {
			req.IDBase = p.Machine.GuestIDs
		}
	}
	var err error
	if req.Files, err = contents(p.Files); err != nil {
		return nil, err
	}
	sharing, shared := trace.Begin(ctx, "volumes")
	req.Volumes, err = r.serveVolumes(sharing, s, p, c, req.IDBase, nil)
	shared.End()
	if err != nil {
		return nil, err
	}
	err = within(ctx, createTimeout, func(ctx context.Context) (err error) {
		r.inner, err = c.Create(ctx, req, p.Stdio, p.Notice)
		return err
	})
	if err != nil {
		return nil, r.blame(err)
	}
	i := &instance{Instance: r.inner, remains: r, spec: s}
	switch {
	case s.VM.System:
		return &system{instance: i}, nil
	case r.machine == nil:
		return &lodger{instance: i}, nil
	}
	return i, nil
}

// contents reads the files that appear inside, by their path there.
func contents(files map[string]string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for target, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		out[target] = b
	}
	return out, nil
}

// blame says why a guest that was lost is gone, or what one said last that does
// not answer.
func (r *remains) blame(err error) error {
	silent := errors.Is(err, errSilent)
	if !silent && !errors.Is(err, client.ErrGuestLost) {
		return err
	}
	if r.machine != nil {
		return r.machine.fault(err)
	}
	if silent {
		return fmt.Errorf("the tenant's machine: %w", err)
	}
	return fmt.Errorf("the tenant's machine has ended: %w", err)
}

// instance is a workload in a machine.
type instance struct {
	*client.Instance
	*remains
	spec workload.Spec // as it was started

	killed sync.Once
}

var (
	_ boundary.Instance = (*instance)(nil)
	_ boundary.Pauser   = (*instance)(nil)
	_ boundary.Lister   = (*instance)(nil)
	_ boundary.Keeper   = (*instance)(nil)
)

// Wait waits for the workload, or for the end of its machine.
func (i *instance) Wait(ctx context.Context) (workload.Exit, error) {
	e, err := i.Instance.Wait(ctx)
	if err != nil && i.forced.Load() {
		return e, fmt.Errorf("it was killed with what it ran in: %w", errSilent)
	}
	return i.outcome(e, err)
}

// outcome is how a process ended. One that Delete ended together with the
// machine was killed: its guest is not there to say so.
func (r *remains) outcome(e workload.Exit, err error) (workload.Exit, error) {
	if errors.Is(err, client.ErrGuestLost) && r.ended.Load() {
		return workload.Exit{Code: 128 + int(syscall.SIGKILL), Signal: int(syscall.SIGKILL), At: time.Now()}, nil
	}
	return e, r.blame(err)
}

// Signal asks the agent. SIGKILL is in force whatever the agent makes of it.
func (i *instance) Signal(ctx context.Context, sig syscall.Signal) error {
	switch {
	case i.machine == nil:
	case sig == syscall.SIGKILL:
		if _, err := i.machine.processors.release(ctx); err != nil {
			i.force()
			return nil
		}
	default: // one that is paused takes the signal, and is paused again
		done, err := i.machine.processors.ask(ctx)
		if err != nil {
			return err
		}
		defer done()
	}
	err := within(ctx, killTimeout, func(ctx context.Context) error { return i.Instance.Signal(ctx, sig) })
	if sig != syscall.SIGKILL {
		return err
	}
	if err != nil && !errors.Is(err, workload.ErrNotRunning) {
		i.force()
		return nil
	}
	i.killed.Do(func() { go i.watch() })
	return err
}

// watch makes sure that a workload ends whose agent says that it was killed.
func (i *instance) watch() {
	ctx, cancel := context.WithTimeout(context.Background(), deathTimeout)
	defer cancel()
	if _, err := i.Instance.Wait(ctx); err != nil && ctx.Err() != nil {
		i.force()
	}
}

// force ends a workload without its guest's help: with its machine, or in a
// tenant's machine by giving up its streams.
func (i *instance) force() {
	i.forced.Store(true)
	if i.machine != nil {
		i.machine.vmm.Kill()
		return
	}
	i.Abandon()
}

// Exec runs another process in the workload.
func (i *instance) Exec(ctx context.Context, p workload.Process, stdio boundary.Stdio) (proc boundary.Process, err error) {
	err = within(ctx, answerTimeout, func(ctx context.Context) (err error) {
		proc, err = i.Instance.Exec(ctx, p, stdio)
		return err
	})
	if err != nil {
		return nil, i.blame(err)
	}
	return &executed{proc, i.remains}, nil
}

// executed is a process that Exec made.
type executed struct {
	boundary.Process
	r *remains
}

// Wait waits for the process, or for the end of its machine.
func (x *executed) Wait(ctx context.Context) (workload.Exit, error) {
	return x.r.outcome(x.Process.Wait(ctx))
}

// Signal asks the agent, for a limited time.
func (x *executed) Signal(ctx context.Context, sig syscall.Signal) error {
	return within(ctx, killTimeout, func(ctx context.Context) error { return x.Process.Signal(ctx, sig) })
}

// SignalGroup asks the agent, for a limited time.
func (x *executed) SignalGroup(ctx context.Context, sig syscall.Signal) error {
	g, ok := x.Process.(boundary.Group)
	if !ok {
		return workload.ErrUnsupported
	}
	return within(ctx, killTimeout, func(ctx context.Context) error { return g.SignalGroup(ctx, sig) })
}

// Start lets the workload's program run.
func (i *instance) Start(ctx context.Context) error {
	if err := within(ctx, answerTimeout, i.Instance.Start); err != nil {
		return i.blame(err)
	}
	if i.machine != nil {
		i.machine.started()
	}
	return nil
}

// Pause stops all processes of the workload, by the guest's kernel. In a machine
// of the workload's own the processors stop too, whatever that kernel says.
func (i *instance) Pause(ctx context.Context) error {
	if err := within(ctx, killTimeout, i.Instance.Pause); err != nil {
		return i.blame(err)
	}
	if i.machine == nil {
		return nil
	}
	return i.machine.processors.hold(ctx)
}

// Resume continues what Pause stopped.
func (i *instance) Resume(ctx context.Context) error {
	if i.machine != nil {
		if err := i.machine.letGo(ctx); err != nil {
			return err
		}
	}
	return i.blame(within(ctx, killTimeout, i.Instance.Resume))
}

// Processes lists the workload's processes by their IDs in the guest.
func (i *instance) Processes(ctx context.Context) (ids []int, err error) {
	err = within(ctx, answerTimeout, func(ctx context.Context) (err error) {
		ids, err = i.Instance.Processes(ctx)
		return err
	})
	return ids, i.blame(err)
}

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
	asked   bool // it was asked to end
	stopped bool // its guest has taken that up, or it was killed
}

var _ boundary.Host = (*tenant)(nil)

// Dial and Insert are the machine's.
func (t *tenant) Dial(ctx context.Context) (io.ReadWriteCloser, error) { return t.machine.Dial(ctx) }

// Insert shows the guest an image as a disk.
func (t *tenant) Insert(ctx context.Context, image string) (string, func(), error) {
	return t.machine.Insert(ctx, image)
}

// Plug connects a network device of the guest.
func (t *tenant) Plug(ctx context.Context, tap *os.File, stream bool) (string, func(), error) {
	return t.machine.Plug(ctx, tap, stream)
}

// Start has nothing to start: the machine runs.
func (t *tenant) Start(context.Context) error {
	t.machine.started()
	return nil
}

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
	if t.asWished(t.machine.vmm.Ending()) {
		return workload.Exit{}, nil
	}
	return workload.Exit{}, t.machine.fault(errors.New("the machine has ended"))
}

// asWished tells whether a machine that ended so was stopped.
func (t *tenant) asWished(e qemu.Ending) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stopped || t.asked && e != qemu.NotEnded
}

// Signal shuts the machine down, or ends it at once with SIGKILL.
func (t *tenant) Signal(ctx context.Context, sig syscall.Signal) error {
	kill := sig == syscall.SIGKILL
	t.mu.Lock()
	t.asked = true
	t.stopped = t.stopped || kill
	t.mu.Unlock()
	if kill {
		t.machine.vmm.Kill()
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	err := clientOf(t.machine).PowerOff(ctx)
	if err == nil {
		t.mu.Lock()
		t.stopped = true
		t.mu.Unlock()
	}
	return err
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
