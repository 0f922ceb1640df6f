package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/template"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A clone of an image template can be made before there is a workload for it. It
// has its seed, waits with its processors stopped, and is in everything a clone
// that a workload has restored itself, but that its interfaces are connected and
// its disk becomes the workload's only when that comes.
//
//	Warm     template ▶ seed, clock ▶ processors stopped … Create: clock, interfaces, adopted, disk
//
// What was made is found by the directory, as an instance is. Create moves the
// directory, so at no time two have it, or nobody.

// waiting is a machine that waits.
type waiting struct {
	b    Boundary
	key  string
	disk *os.File // without a name, so that it is gone with us

	mu sync.Mutex
	r  *remains // nil when somebody has it
}

var (
	_ boundary.Warmer = Boundary{}
	_ boundary.Warm   = (*warm)(nil)
)

// warm is what Warm returns.
type warm struct {
	*waiting
	machine *machine
}

// Warm makes a clone of the image template with this key.
func (b Boundary) Warm(ctx context.Context, s workload.Spec, p boundary.Prepared, key string) (_ boundary.Warm, err error) {
	s = withModules(s, p.Machine)
	s.Resources.CPUWeight = 0 // no workload's but that of the one that comes, of which the template knows nothing
	z, err := sizeOf(s, qemu.Accel(p.Machine.Accel), false)
	if err != nil {
		return nil, err
	}
	t, err := template.New(p.Machine.Templates).Open(key)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if t.Disk == nil {
		return nil, fmt.Errorf("%w: it is of no image", template.ErrDamaged)
	}
	w := &waiting{b: b, key: key}
	w.r = &remains{b: b, id: s.ID, dir: filepath.Join(p.Dir, ownDirectory), record: record{Cgroup: p.Cgroup, Keep: !s.AutoRemove}, size: z, idle: true}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Discard(context.WithoutCancel(ctx)))
		}
	}()
	if w.disk, err = unnamed(filepath.Dir(p.Machine.Data)); err != nil {
		return nil, fmt.Errorf("make the writable disk: %w", err)
	}
	if err := copyDisk(w.disk, t.Disk); err != nil {
		return nil, fmt.Errorf("make the writable disk: %w", err)
	}
	m := *p.Machine
	m.Data = "/proc/self/fd/" + strconv.Itoa(int(w.disk.Fd()))
	p.Machine = &m
	if m.Blank, err = identity(m.Data); err != nil {
		return nil, err
	}
	if now, err := b.ImageKey(s, p); err != nil || now != key {
		return nil, errors.Join(err, errors.New("the template is outdated: since it was made, the kernel, QEMU, this program or the image was replaced"))
	}
	if err := os.Mkdir(w.r.dir, 0o700); err != nil {
		return nil, err
	}
	cg, err := z.group(p.Cgroup, s)
	if err != nil {
		return nil, err
	}
	if err := w.r.record.write(w.r.dir); err != nil {
		return nil, err
	}
	w.r.cgroup = cg
	if err := cg.Create(); err != nil {
		return nil, err
	}
	p, _ = explainNICs(s, p)
	if w.r.machine, err = b.restore(ctx, t, unplugged(config(s, p, w.r.dir, z)), cg, nil); err != nil {
		return nil, err
	}
	if p.Machine.Accel == string(qemu.TCG) {
		if err := w.r.machine.rehearse(ctx, s, p); err != nil {
			return nil, fmt.Errorf("rehearse the start of a workload: %w", err)
		}
	}
	if err := w.r.machine.processors.hold(ctx); err != nil {
		return nil, err
	}
	return &warm{waiting: w, machine: w.r.machine}, nil
}

// rehearse has the guest do what the start of a workload takes, with a program of
// ours in a container like that which waits: an emulator translates code when it runs
// for the first time, which takes most of a start. Nothing of the image's runs, and
// the container goes before anybody comes.
func (m *machine) rehearse(ctx context.Context, s workload.Spec, p boundary.Prepared) (err error) {
	like, ok := nobody(s, p)
	if !ok {
		return errors.New("there is nothing that could be made")
	}
	like.Alone, like.Spec.ID, like.Spec.Init, like.Spec.AutoRemove = false, protocol.Rehearsal, true, true
	like.Spec.Process.Terminal, like.Streams = false, protocol.Streams{Out: true, Err: true}
	like.Spec.Mounts, like.Volumes = nil, nil // nobody serves them yet
	var io boundary.Stdio
	for _, f := range []**os.File{&io.Out, &io.Err} {
		r, w, err := os.Pipe() // which has room for all that is said
		if err != nil {
			return err
		}
		defer r.Close()
		defer w.Close()
		*f = w
	}
	c := clientOf(m)
	return within(ctx, createTimeout, func(ctx context.Context) error {
		if err := c.Prepare(ctx, like); err != nil {
			return err
		}
		in, err := c.Adopt(ctx, like, protocol.Adopt{
			Of: protocol.Rehearsal, ID: workload.NewID(), Hostname: "rehearsal", Args: []string{rehearsed}, Files: like.Files,
		}, io, nil)
		if err != nil {
			return err
		}
		if err = in.Start(ctx); err == nil {
			_, err = in.Wait(ctx) // it says how it is used, and ends
		}
		return errors.Join(err, in.Delete(ctx), c.RemoveData(ctx, protocol.Rehearsal))
	})
}

// rehearsed is a program that every workload of Spec.Init has: bulkhead-init, which
// runs itself as its child.
const rehearsed = "/dev/init"

// unnamed makes a file without a name in the file system of a directory.
func unnamed(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	fd, err := at.CreateUnnamed(int(d.Fd()), 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// name gives such a file the name of a workload's disk, in the place of the one
// that is there; replaceDisk says what lasting is about.
func name(disk *os.File, path string, lasting bool) error {
	if lasting {
		if err := disk.Sync(); err != nil {
			return err
		}
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	next := filepath.Base(path) + ".new"
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := at.LinkUnnamed(int(disk.Fd()), int(d.Fd()), next); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Boundary is one whose first Create takes what waits.
func (w *warm) Boundary() boundary.Boundary {
	b := w.b
	b.waiting = w.waiting
	return b
}

// Done is closed when the VMM has ended.
func (w *warm) Done() <-chan struct{} { return w.machine.vmm.Done() }

// Discard ends the machine unless somebody has it.
func (w *waiting) Discard(ctx context.Context) error {
	r := w.take()
	if r == nil {
		return nil
	}
	err := r.Delete(ctx)
	if w.disk != nil {
		w.disk.Close()
	}
	return err
}

// take makes what waits the caller's, once.
func (w *waiting) take() *remains {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.r
	w.r = nil
	return r
}

// begun makes the directory of a workload and of what will be made for it; or
// that of a machine which waits becomes it.
func (b Boundary) begun(s workload.Spec, p boundary.Prepared) (*remains, error) {
	dir := filepath.Join(p.Dir, ownDirectory)
	if r := b.waiting.take(); r != nil {
		if r.record.Cgroup != p.Cgroup {
			return nil, errors.Join(fmt.Errorf("a machine waits in the cgroup %s, not %s", r.record.Cgroup, p.Cgroup), r.Delete(context.Background()))
		}
		if err := os.Rename(r.dir, dir); err != nil {
			return nil, errors.Join(err, r.Delete(context.Background()))
		}
		r.id, r.dir, r.idle, r.machine.notice = s.ID, dir, false, p.Notice
		return r, nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return &remains{b: b, id: s.ID, dir: dir, record: record{Cgroup: p.Cgroup, Socket: p.Machine.Socket, Keep: !s.AutoRemove}}, nil
}

// fromWaiting makes the workload s in a machine that has waited. It returns nil
// without an error where that does not work: then the machine is gone, and the
// workload's own disk as it was.
func (b Boundary) fromWaiting(ctx context.Context, s workload.Spec, p boundary.Prepared, r *remains) (boundary.Instance, error) {
	i, err := b.wake(ctx, s, p, r)
	if err == nil {
		return i, nil
	}
	if own(ctx, err) {
		return nil, err
	}
	if kerr := r.giveUp(); kerr != nil {
		return nil, errors.Join(err, kerr)
	}
	if p.Notice != nil {
		p.Notice("the workload does not start in the machine that waited for it: " + qemu.Printable([]byte(err.Error())))
	}
	return nil, nil
}

// wake lets the machine go on, and gives the workload for nobody in it to s.
func (b Boundary) wake(ctx context.Context, s workload.Spec, p boundary.Prepared, r *remains) (*instance, error) {
	defer b.waiting.disk.Close()
	like, ok := nobody(s, p)
	if !ok || !blank(p.Machine) || !flows(p.Stdio, like) {
		return nil, errors.New("it is for other workloads")
	}
	waking := trace.Step(ctx, "waiting machine woken")
	defer waking.End()
	if key, err := b.ImageKey(s, p); err != nil || key != b.waiting.key {
		return nil, errors.Join(err, errors.New("it is outdated, or for other workloads"))
	}
	if _, err := r.machine.processors.release(ctx); err != nil {
		return nil, err
	}
	err := within(ctx, answerTimeout, func(ctx context.Context) error { return clientOf(r.machine).SetClock(ctx, time.Now()) })
	if err != nil {
		return nil, r.blame(err)
	}
	for n, nic := range p.NICs {
		device, _, err := r.machine.Plug(ctx, p.Taps[n], kindOf(nic) == qemu.Stream)
		if err == nil && device != r.machine.nics[n].device { // by which the guest will know it
			err = errors.New("its network device cannot be connected")
		}
		if err != nil {
			return nil, fmt.Errorf("network interface %s: %w", nic.Name, err)
		}
	}
	waking.End()
	i, err := adopt(ctx, s, p, r, like)
	if err != nil {
		return nil, err
	}
	if err := name(b.waiting.disk, p.Machine.Data, !s.AutoRemove); err != nil {
		return nil, fmt.Errorf("the writable disk: %w", err)
	}
	return i, nil
}
