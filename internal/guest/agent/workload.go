package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// entry is one workload, from the moment its ID is taken until everything of
// it is gone.
//
//	taken ──made──> created ──start──> running <──pause, resume──> paused
//	                   └──────────────────┴──end of the first process──> exited
//	any of them ──remove──> gone
type entry struct {
	a  *Agent
	id workload.ID

	made chan struct{} // closed when making it has succeeded or failed
	inst boundary.Instance
	// system says that it is a whole system.
	system bool
	undo   []func() error // what remains to be undone, last first; whoever has removing
	// files are the files that it was given, by path inside.
	files  map[string]string
	wiring sync.Mutex     // orders changes of its network
	nics   []protocol.NIC // whose devices it may have; guarded by wiring

	removing chan struct{} // holds one token
	gone     chan struct{} // closed when no process is left

	mu       sync.Mutex
	status   workload.Status
	executed map[uint64]boundary.Process
	last     uint64
}

// take reserves an ID.
func (a *Agent) take(id workload.ID) (*entry, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.workloads[id] != nil {
		return nil, fmt.Errorf("workload %s exists in the guest: %w", id.Short(), workload.ErrRunning)
	}
	e := &entry{
		a: a, id: id, status: workload.Created,
		made: make(chan struct{}), gone: make(chan struct{}), removing: make(chan struct{}, 1),
		executed: map[uint64]boundary.Process{},
	}
	a.workloads[id], a.had[id] = e, true
	return e, nil
}

func (a *Agent) find(id workload.ID) *entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.workloads[id]
}

// made finds a workload whose making has succeeded.
func (a *Agent) made(ctx context.Context, id workload.ID) (*entry, error) {
	e := a.find(id)
	if e == nil {
		return nil, workload.ErrNotFound
	}
	select {
	case <-e.made:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e.inst == nil {
		return nil, workload.ErrNotFound
	}
	return e, nil
}

// make does all of Create. What it made is undone by remove, also on error.
func (e *entry) make(ctx context.Context, c *protocol.Create, late bool, stdio boundary.Stdio, notice func(string)) (err error) {
	defer close(e.made)
	s := c.Spec
	p := boundary.Prepared{
		IDBase: c.IDBase, IDCount: c.IDCount, Stdio: stdio, Init: e.a.Init, Notice: notice,
		Cgroup: filepath.Join(e.a.Cgroup, string(e.id)), Late: late,
	}
	if s.Resources.OOMScoreAdj == nil {
		s.Resources.OOMScoreAdj = e.a.OOMScoreAdj
	}
	maker := e.a.Boundary
	if s.VM.System {
		if maker = e.a.System; maker == nil {
			return fmt.Errorf("%w: this guest cannot become a whole system", workload.ErrUnsupported)
		}
	}
	if s.Mounts, p.Shifted, err = e.a.mounts(c); err != nil {
		return err
	}
	mounting := trace.Step(ctx, "image mounted")
	image, release, err := e.a.Guest.Image(c.Image)
	mounting.End()
	if err != nil {
		return fmt.Errorf("image disk %s: %w", c.Image, err)
	}
	e.undo = append(e.undo, release)
	p.Layers = []string{image}
	writable := trace.Step(ctx, "writable layer made")
	data := e.id
	if c.Alone {
		data = protocol.Nobody
	}
	p.Upper, p.Work, err = e.a.Guest.Data(data, image, c.IDBase, c.IDCount)
	writable.End()
	if err != nil {
		return fmt.Errorf("writable layer: %w", err)
	}
	dir := filepath.Join(e.a.RunDir, string(e.id))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	e.undo = append(e.undo, func() error { return os.RemoveAll(dir) })
	p.Dir = filepath.Join(dir, "boundary")
	if err := os.Mkdir(p.Dir, 0o700); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if p.Files, err = writeFiles(filepath.Join(dir, "files"), c.Files, int(c.IDBase)); err != nil {
		return fmt.Errorf("files of the workload: %w", err)
	}
	e.files = p.Files
	creating, created := trace.Begin(ctx, "boundary created")
	inst, err := maker.Create(creating, s, p)
	created.End()
	if err != nil {
		return err
	}
	e.inst = inst
	e.system = s.VM.System
	e.undo = append(e.undo, e.disconnect)
	return e.attach(ctx, c.NICs)
}

// attach gives a workload that was created its network interfaces.
func (e *entry) attach(ctx context.Context, nics []protocol.NIC) error {
	defer trace.Step(ctx, "interfaces attached").End()
	if len(nics) == 0 {
		return nil
	}
	if e.system { // the guest's namespace is the system's
		return e.a.Guest.Attach(nics, nil)
	}
	ns, err := e.netns()
	if err != nil {
		return err
	}
	defer ns.Close()
	e.wiring.Lock()
	defer e.wiring.Unlock()
	if err := ctx.Err(); err != nil {
		return err // the host waits no longer, and may give the devices to others
	}
	e.nics = slices.Clone(nics)
	return e.a.Guest.Attach(nics, ns)
}

// disconnect takes the devices back that a workload had when it ended: what it did
// to them is not to come to the next.
func (e *entry) disconnect() error {
	e.wiring.Lock()
	defer e.wiring.Unlock()
	return e.detach(e.nics)
}

// detach takes devices back. The caller has wiring.
func (e *entry) detach(nics []protocol.NIC) error {
	var failed error
	for _, back := range slices.Clone(nics) { // nics may be e.nics itself
		if err := e.a.Guest.Detach([]protocol.NIC{back}); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		// It may be another's by the time that the others are tried again.
		e.nics = slices.DeleteFunc(e.nics, func(n protocol.NIC) bool { return strings.EqualFold(back.Device, n.Device) })
	}
	return failed
}

// netns opens the network namespace of a workload.
func (e *entry) netns() (*os.File, error) {
	n, ok := e.inst.(boundary.NetNS)
	if !ok {
		return nil, fmt.Errorf("%w: network interfaces", workload.ErrUnsupported)
	}
	ns, err := n.NetNS()
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return ns, nil
}

// rewire changes the network interfaces of a workload that runs. When those that
// are added cannot be, they are taken back.
func (e *entry) rewire(ctx context.Context, w *protocol.Rewire) error {
	if err := checkRewire(w); err != nil {
		return err
	}
	e.wiring.Lock()
	defer e.wiring.Unlock()
	select {
	case <-e.gone: // nobody would take back what it got
		return workload.ErrNotFound
	case <-ctx.Done(): // the host waits no longer, and may give the devices to others
		return ctx.Err()
	default:
	}
	ns, err := e.netns()
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := e.detach(w.Remove); err != nil {
		return err
	}
	e.nics = append(e.nics, w.Add...)
	if err := e.a.Guest.Attach(w.Add, ns); err != nil {
		return errors.Join(err, e.detach(w.Add))
	}
	if err := e.a.Guest.Route(w.Route, ns); err != nil {
		return err
	}
	for target, edit := range w.Files {
		if file, ok := e.files[target]; ok {
			if err := boundary.EditFile(file, edit); err != nil {
				return fmt.Errorf("change the workload's %s: %w", target, err)
			}
		}
	}
	return nil
}

// mounts returns the mounts of c, each volume by its directory in the guest,
// and the list of those directories.
func (a *Agent) mounts(c *protocol.Create) (out []workload.Mount, shifted []string, err error) {
	for i, m := range c.Spec.Mounts {
		if m.Type == "bind" {
			name, ok := c.Volumes[i]
			if !ok {
				return nil, nil, fmt.Errorf("%w: mount at %s: no volume shows %s to the guest", workload.ErrUnsupported, m.Target, m.Source)
			}
			dir, err := a.volumePath(name)
			if err != nil {
				return nil, nil, fmt.Errorf("mount at %s: %w", m.Target, err)
			}
			m.Source, m.CreateSource = dir, false
			shifted = append(shifted, dir)
		}
		out = append(out, m)
	}
	return out, shifted, nil
}

// writeFiles writes contents to files named by number, which belong to the
// workload's root, who may change them.
func writeFiles(dir string, contents map[string][]byte, owner int) (map[string]string, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for target, b := range contents {
		file := filepath.Join(dir, fmt.Sprint(len(files)))
		if err := os.WriteFile(file, b, 0o644); err != nil {
			return nil, err
		}
		if err := os.Chmod(file, 0o644); err != nil { // whatever the umask is
			return nil, err
		}
		if os.Geteuid() == 0 {
			if err := os.Lchown(file, owner, owner); err != nil {
				return nil, err
			}
		}
		files[target] = file
	}
	return files, nil
}

// remove ends a workload and removes everything of it but its data. One that
// does not exist is gone. After an error it may be called again.
func (a *Agent) remove(ctx context.Context, id workload.ID) error {
	if e := a.find(id); e != nil {
		return e.remove(ctx)
	}
	return nil
}

func (e *entry) remove(ctx context.Context) error {
	select {
	case <-e.made:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case e.removing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-e.removing }()
	select {
	case <-e.gone:
	default:
		if e.inst != nil {
			if err := e.inst.Delete(ctx); err != nil {
				return fmt.Errorf("delete workload %s: %w", e.id.Short(), err)
			}
		}
		close(e.gone)
	}
	for n := len(e.undo); n > 0; n = len(e.undo) {
		if err := e.undo[n-1](); err != nil {
			return fmt.Errorf("clean up after workload %s: %w", e.id.Short(), err)
		}
		e.undo = e.undo[:n-1]
	}
	e.a.mu.Lock()
	defer e.a.mu.Unlock()
	if e.a.workloads[e.id] == e { // it may have been taken again
		delete(e.a.workloads, e.id)
	}
	return nil
}

// end removes a workload that nobody holds any more. It tries again, as nobody
// else will.
func (e *entry) end() {
	const tries = 3
	for i := range tries {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := e.remove(ctx)
		cancel()
		if err == nil {
			return
		}
		e.a.Log(err.Error())
		if i < tries-1 {
			time.Sleep(time.Second)
		}
	}
}

func (e *entry) start(ctx context.Context) error {
	e.mu.Lock()
	if e.status != workload.Created {
		e.mu.Unlock()
		return workload.ErrRunning
	}
	e.status = workload.Running
	e.mu.Unlock()
	err := e.inst.Start(ctx)
	if err != nil {
		e.setStatus(workload.Running, workload.Created)
	}
	return err
}

func (e *entry) setStatus(from, to workload.Status) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.status == from {
		e.status = to
	}
}

func (e *entry) signal(ctx context.Context, process uint64, sig syscall.Signal, group bool) error {
	if sig < 1 || sig > 64 {
		return fmt.Errorf("%w: signal %d", protocol.ErrProtocol, int(sig))
	}
	if process == 0 {
		return e.inst.Signal(ctx, sig)
	}
	e.mu.Lock()
	p := e.executed[process]
	e.mu.Unlock()
	if p == nil {
		return workload.ErrNotRunning
	}
	if !group {
		return p.Signal(ctx, sig)
	}
	g, ok := p.(boundary.Group)
	if !ok {
		return fmt.Errorf("%w: signals to a process and what it has started", workload.ErrUnsupported)
	}
	return g.SignalGroup(ctx, sig)
}

func (e *entry) pause(ctx context.Context, paused bool) error {
	p, ok := e.inst.(boundary.Pauser)
	if !ok {
		return fmt.Errorf("%w: pausing", workload.ErrUnsupported)
	}
	var err error
	if paused {
		if err = p.Pause(ctx); err == nil {
			e.setStatus(workload.Running, workload.Paused)
		}
	} else if err = p.Resume(ctx); err == nil {
		e.setStatus(workload.Paused, workload.Running)
	}
	return err
}

func (e *entry) processes(ctx context.Context) ([]int, error) {
	l, ok := e.inst.(boundary.Lister)
	if !ok {
		return nil, fmt.Errorf("%w: listing processes", workload.ErrUnsupported)
	}
	return l.Processes(ctx)
}

// add numbers a process that was executed; forget ends that.
func (e *entry) add(p boundary.Process) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	e.executed[e.last] = p
	return e.last
}

func (e *entry) forget(n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.executed, n)
}

// wait returns how a process of the workload ended, or an error when the
// workload is gone and the process never ran.
func (e *entry) wait(p boundary.Process) (workload.Exit, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		select {
		case <-e.gone:
		case <-ctx.Done():
		}
	}()
	exit, err := p.Wait(ctx)
	if errors.Is(err, context.Canceled) {
		e.mu.Lock()
		ran := p != boundary.Process(e.inst) || e.status != workload.Created
		e.mu.Unlock()
		if !ran {
			return exit, err
		}
		// It has ended; only that Wait may have seen both at once.
		again, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		exit, err = p.Wait(again)
	}
	return exit, err
}
