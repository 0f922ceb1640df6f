package vm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/template"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A machine that boots with nothing of a workload's in it is the same each time.
// So it is saved, once, when its agent has greeted the host and before it was
// told anything, and the machines of workloads go on from there:
//
//	command     Template: is there one?  ──no──▶ boot, Save
//	supervisor  begin: restore ▶ seed, clock ▶ the workload     or boot, when there is none
//
// What differs between workloads comes in slots: disks, network interfaces, and
// all that the agent is told. Nothing of a workload is ever in a template. Until
// the guest's random generator has its own seed, nothing is asked of the agent
// but to take that, and the time: a clone that does not take both is ended.

// restoreTimeout is how long a clone may take until it has taken seed and time,
// which takes a fraction of a second when all is well, and longer where many start
// at once.
const restoreTimeout = 2 * time.Minute

// generic is the machine c without anything that belongs to one workload.
func generic(c qemu.Config) (qemu.Config, error) {
	c.Disks = slices.Clone(c.Disks)
	for i := range c.Disks {
		d := &c.Disks[i]
		if d.File != "" && !d.ReadOnly {
			// A guest shall not see another size than that of the disk it may write to.
			st, err := os.Stat(d.File)
			if err != nil {
				return c, err
			}
			d.Size = st.Size()
		}
		d.File = ""
	}
	return unplugged(c), nil
}

// unplugged is the machine c with interfaces that are connected to nothing yet.
func unplugged(c qemu.Config) qemu.Config {
	c.NICs = slices.Clone(c.NICs)
	for i := range c.NICs {
		c.NICs[i] = qemu.NIC{MAC: slotMAC(i), Kind: qemu.Slot}
	}
	return c
}

// source is where the machine of a workload looks for templates.
type source struct {
	store *template.Store
	key   string // of the generic template
	err   error  // why that is not known
}

// source returns nil where the machine boots.
func (b Boundary) source(s workload.Spec, p boundary.Prepared, c qemu.Config) *source {
	if p.Machine.Templates == "" || s.VM.NoTemplate {
		return nil
	}
	src := &source{store: template.New(p.Machine.Templates)}
	g, err := generic(c)
	if err == nil {
		src.key, _, err = qemu.Fingerprint(g)
	}
	src.err = err
	return src
}

// clone is the machine c as one that goes on from a template of generic(c).
func clone(c qemu.Config, memory, state *os.File) qemu.Config {
	c.NICs = slices.Clone(c.NICs)
	for i := range c.NICs {
		c.NICs[i].MAC = slotMAC(i) // the agent gives the interface the one that is wanted
	}
	c.RAM, c.State = &qemu.RAM{File: memory}, state
	return c
}

// begin lets a machine go on from a template, or boots it: when there is none,
// and when the one that there is does not work. Where it is the host that has not
// what a clone takes, a boot would take more of it, and that is an error.
func (b Boundary) begin(ctx context.Context, from *source, c qemu.Config, cg *cgroup.Manager, notice func(string)) (*machine, error) {
	if from == nil {
		return b.boot(ctx, c, cg, notice)
	}
	m, err := b.fromTemplate(ctx, from, c, cg, notice)
	if err == nil || ctx.Err() != nil || starving(err) {
		return m, err
	}
	if notice != nil {
		notice("the machine boots, as there is no template that it could go on from: " + qemu.Printable([]byte(err.Error())))
	}
	return b.boot(ctx, c, cg, notice)
}

// fromTemplate finds the generic template and makes a clone.
func (b Boundary) fromTemplate(ctx context.Context, from *source, c qemu.Config, cg *cgroup.Manager, notice func(string)) (*machine, error) {
	if from.err != nil {
		return nil, from.err
	}
	finding := trace.Step(ctx, "template verified")
	t, err := from.store.Open(from.key)
	finding.End()
	var m *machine
	if err == nil {
		m, err = b.restore(ctx, t, c, cg, notice)
		t.Close() // QEMU has what it needs
	}
	if err != nil && ctx.Err() == nil {
		err = discard(from.store, from.key, err)
	}
	return m, err
}

// starving tells that there is no clone because the host has not what it takes.
func starving(err error) bool {
	var f *qemu.Fault
	return errors.As(err, &f) && f.Who == qemu.Host
}

// discard removes a template from which no clone came, for the reason err, so that
// the next start makes another: one that is damaged, and one from which QEMU or the
// guest does not go on. Where others do go on from it, it stays, and a guest that
// only does not answer in time is a sign of a host that has not enough for all: if all
// that are slow booted, there would be still less. It returns err with what has
// come of that.
func discard(store *template.Store, key string, err error) error {
	var f *qemu.Fault
	failed := errors.As(err, &f) && f.Who != qemu.Host
	damaged := errors.Is(err, template.ErrDamaged)
	if !damaged && !failed {
		return err
	}
	late := failed && f.Who != qemu.VMM && !f.Panic && (errors.Is(err, errSilent) || errors.Is(err, context.DeadlineExceeded))
	switch e := store.Remove(key, damaged); {
	case errors.Is(e, template.ErrInUse) && late:
		return &fault{qemu.Fault{Who: qemu.Host, Text: "the machine does not answer in time, as others do that go on from the same template: there is not enough memory or time for all"}, err}
	case errors.Is(e, template.ErrInUse), errors.Is(e, template.ErrNotFound):
		return err
	default:
		return errors.Join(err, e)
	}
}

// restore makes a clone.
func (b Boundary) restore(ctx context.Context, t *template.Template, c qemu.Config, cg *cgroup.Manager, notice func(string)) (*machine, error) {
	m, err := start(ctx, clone(c, t.RAM, t.State), cg, notice)
	if err != nil {
		return nil, err
	}
	if m.sess, err = protocol.Resume(m.vmm.Agent(), t.Hello); err != nil {
		err = m.fault(err)
	} else {
		err = m.settle(ctx, cmp.Or(b.BootTimeout, restoreTimeout))
	}
	if err != nil {
		return nil, errors.Join(err, m.kill())
	}
	return m, nil
}

// Progress hears of a template that is being made. Its functions may be nil.
type Progress struct {
	// Begin is called when a machine is booted to be saved, with the name of the
	// image that it is for, "" if it is for any; Wait when another command is doing
	// that.
	Begin func(image string)
	Wait  func()
	// Failed is called when that which is for an image could not be made, which does
	// no harm.
	Failed func(err error)
}

func (p Progress) begin(image string) func() {
	return func() {
		if p.Begin != nil {
			p.Begin(image)
		}
	}
}

// Templates is the store in a directory, for those who make and remove templates;
// cgroups is the cgroup below which they make machines.
func Templates(dir, cgroups string) *template.Store {
	s := template.New(dir)
	s.Clean = func(key string) error {
		m, err := cgroup.Load(templateCgroup(cgroups, dir, key), cgroup.Options{})
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return destroy(context.Background(), m)
	}
	return s
}

// templateCgroup is the cgroup of who makes a template: of this key in this
// directory.
func templateCgroup(parent, dir, key string) string {
	sum := sha256.Sum256([]byte(dir + "\x00" + key))
	return parent + "/template-" + hex.EncodeToString(sum[:8])
}

// destroy removes a cgroup with whatever is in it.
func destroy(ctx context.Context, m *cgroup.Manager) error {
	if err := m.Kill(ctx); err != nil {
		return err
	}
	return m.Destroy(ctx)
}

// Template makes sure that there is a template for the machine of s, in the
// directory p.Machine.Templates. Of p it needs Machine, IDBase, IDCount, the keys of
// Files, and as Cgroup the one to make another below.
func (b Boundary) Template(ctx context.Context, s workload.Spec, p boundary.Prepared, on Progress) error {
	m, err := b.maker(s, p)
	if err != nil {
		return err
	}
	ready, err := m.ofImage(ctx, on)
	if ready || ctx.Err() != nil {
		return err
	}
	if err != nil && on.Failed != nil {
		on.Failed(err)
	}
	return Templates(m.dir, m.cgroups).Ensure(ctx, template.Recipe{
		Key: m.key, Machine: m.parts, Memory: m.generic.Memory, Begin: on.begin(""), Wait: on.Wait,
		Save: func(ctx context.Context, f *template.Files) (protocol.Hello, error) {
			return m.save(ctx, m.generic, m.key, f, nil)
		},
	})
}

// maker makes templates for one workload's machine.
type maker struct {
	b            Boundary
	s            workload.Spec
	p            boundary.Prepared
	z            size
	cgroups, dir string
	c, generic   qemu.Config
	key          string            // of the generic template
	parts        map[string]string // see qemu.Fingerprint
}

func (b Boundary) maker(s workload.Spec, p boundary.Prepared) (*maker, error) {
	k := &maker{b: b, s: withModules(s, p.Machine), cgroups: p.Cgroup, dir: p.Machine.Templates}
	var err error
	if k.z, err = sizeOf(k.s, qemu.Accel(p.Machine.Accel), false); err != nil {
		return nil, err
	}
	k.p, _ = explainNICs(k.s, p)
	k.c = config(k.s, k.p, k.dir, k.z)
	if k.generic, err = generic(k.c); err != nil {
		return nil, err
	}
	k.key, k.parts, err = qemu.Fingerprint(k.generic)
	return k, err
}

// save boots a machine, has prepare make it ready if that is not nil, and saves
// it.
func (k *maker) save(ctx context.Context, c qemu.Config, key string, f *template.Files, prepare func(context.Context, *machine) error) (hello protocol.Hello, err error) {
	cg, err := k.z.group(templateCgroup(k.cgroups, k.dir, key), k.s)
	if err != nil {
		return hello, err
	}
	if err := cg.Create(); err != nil {
		return hello, err
	}
	defer func() { err = errors.Join(err, destroy(context.WithoutCancel(ctx), cg)) }()
	c.RAM, c.Dir = &qemu.RAM{File: f.RAM, Shared: true}, filepath.Dir(f.RAM.Name())
	m, err := start(ctx, c, cg, nil)
	if err != nil {
		return hello, err
	}
	defer func() { err = errors.Join(err, m.kill()) }()
	if err := m.greet(ctx, k.b.bootLimit(c)); err != nil {
		return hello, err
	}
	if prepare != nil {
		if err := prepare(ctx, m); err != nil {
			return hello, err
		}
		// Nothing may be under way: a clone's host begins as if nothing had been said.
		if err := within(ctx, answerTimeout, m.sess.Idle); err != nil {
			return hello, m.fault(err)
		}
	}
	if err := m.vmm.Save(ctx, f.State); err != nil {
		return hello, fmt.Errorf("save the machine: %w", m.ended(err))
	}
	return m.sess.Peer(), nil
}
