package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/template"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// An image template is of a machine in which a workload of an image has been made
// already, up to the first instruction of its program: for nobody, without
// program, environment, names, addresses, or what their files say. Its volumes are
// mounted and served by nobody. A clone's agent is told whose it is, gets servers for
// the volumes, and starts it.
//
// It is for an image and all options that shape a workload, so there may be many:
// one is made when the same has been started often, and it serves a workload's
// first start, as its disk is a copy of the one that the workload for nobody has.
//
//	generic template   kernel, agent ────────────────────────── image, disk, container, program
//	image template     kernel, agent, image, disk, container ── names, program

// often is which start of the same makes an image template.
const often = 3

// due tells whether a start makes an image template, by which start of the same it
// is: the one that is often, and while that comes to nothing, which takes each as long
// as a boot, the one that is twice as often.
func due(times int) bool {
	n := times / often
	return times%often == 0 && n > 0 && n&(n-1) == 0
}

// nobody returns the workload for nobody that becomes s when it is adopted; or
// false, where it cannot be made before it is known for whom.
func nobody(s workload.Spec, p boundary.Prepared) (protocol.Create, bool) {
	m := p.Machine
	if s.VM.Tenant != "" || s.VM.Machine || s.VM.System || m.GuestIDs == 0 {
		return protocol.Create{}, false
	}
	in := inside(s)
	c := protocol.Create{
		Image: "image0", Alone: true, Files: map[string][]byte{},
		Spec: workload.Spec{
			ID: protocol.Nobody, Image: workload.Image{Digest: s.Image.Digest},
			Process: workload.Process{
				Cwd: in.Process.Cwd, User: in.Process.User, Terminal: in.Process.Terminal, Rlimits: in.Process.Rlimits, Groups: in.Process.Groups,
			},
			ReadOnlyRoot: in.ReadOnlyRoot, Init: in.Init, Network: in.Network, Namespaces: in.Namespaces, Mounts: in.Mounts, Devices: in.Devices,
			Resources: in.Resources, Security: in.Security, AutoRemove: in.AutoRemove,
		},
	}
	if s.Hostname != "" {
		c.Spec.Hostname = "nobody"
	}
	if !s.Namespaces.HostUser {
		c.IDBase, c.IDCount = m.GuestIDs, p.IDCount
	}
	if !s.Process.Terminal {
		c.Streams = protocol.Streams{In: s.KeepStdin, Out: true, Err: true}
	}
	for target := range p.Files {
		c.Files[target] = nil
	}
	var ok bool
	c.Spec.Mounts, c.Volumes, ok = heldVolumes(in.Mounts, in.Process.Cwd)
	return c, ok
}

// imageKey is the key of the image template for c, on a machine whose generic
// template has the key generic.
func imageKey(generic string, c protocol.Create, m *boundary.Machine) (string, error) {
	image, err := identity(m.Image)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s", generic, image, b))
	return hex.EncodeToString(sum[:]), nil
}

// identity is that of a file, see sys.Identity.
func identity(name string) (string, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	return sys.Identity(fi)
}

// blank tells whether nothing was ever written to a workload's disk.
func blank(m *boundary.Machine) bool {
	now, err := identity(m.Data)
	return err == nil && m.Blank != "" && now == m.Blank
}

// image returns the key of the image template that the workload would go on from at
// its first start, and the workload for nobody in it; "" where there can be none.
func (k *maker) image() (key string, like protocol.Create, err error) {
	like, ok := nobody(k.s, k.p)
	if !ok || !blank(k.p.Machine) {
		return "", like, nil
	}
	key, err = imageKey(k.key, like, k.p.Machine)
	return key, like, err
}

// ofImage makes sure that there is an image template for a workload that is started
// often. It reports whether there is one.
func (k *maker) ofImage(ctx context.Context, on Progress) (bool, error) {
	key, like, err := k.image()
	if key == "" || err != nil {
		return false, err
	}
	store := Templates(k.dir, k.cgroups)
	if t, err := store.Open(key); err == nil {
		t.Close()
		return true, nil
	}
	if times, err := store.Asked(key); err != nil || !due(times) {
		return false, err
	}
	err = k.ensureImage(ctx, key, like, on)
	return err == nil, err
}

// ImageKey is the key of the image template that a workload would go on from at its
// first start, whether there is one or not; "" where there can be none.
func (b Boundary) ImageKey(s workload.Spec, p boundary.Prepared) (string, error) {
	k, err := b.maker(s, p)
	if err != nil {
		return "", err
	}
	key, _, err := k.image()
	return key, err
}

// ImageTemplate makes sure that there is one, however often it was asked for, and
// returns its key. What it needs of p is what Template needs.
func (b Boundary) ImageTemplate(ctx context.Context, s workload.Spec, p boundary.Prepared, on Progress) (string, error) {
	k, err := b.maker(s, p)
	if err != nil {
		return "", err
	}
	key, like, err := k.image()
	if key == "" || err != nil {
		return "", err
	}
	return key, k.ensureImage(ctx, key, like, on)
}

// ensureImage makes an image template unless it is there.
func (k *maker) ensureImage(ctx context.Context, key string, like protocol.Create, on Progress) error {
	c, parts := unplugged(k.c), maps.Clone(k.parts)
	parts["image"] = k.s.Image.Reference
	return Templates(k.dir, k.cgroups).Ensure(ctx, template.Recipe{
		Key: key, Machine: parts, Memory: c.Memory, Disk: true, Begin: on.begin(k.s.Image.Reference), Wait: on.Wait,
		Save: func(ctx context.Context, f *template.Files) (protocol.Hello, error) {
			empty, err := os.Open(k.p.Machine.Data)
			if err != nil {
				return protocol.Hello{}, err
			}
			defer empty.Close()
			if err := copyDisk(f.Disk, empty); err != nil {
				return protocol.Hello{}, err
			}
			c.Disks = slices.Clone(c.Disks)
			for i := range c.Disks {
				if d := &c.Disks[i]; !d.ReadOnly {
					d.File = f.Disk.Name()
				}
			}
			return k.save(ctx, c, key, f, func(ctx context.Context, m *machine) error {
				// What is random in it by then is no secret: each clone gets a seed of its own.
				if err := m.settle(ctx, settleTimeout); err != nil {
					return err
				}
				return within(ctx, createTimeout, func(ctx context.Context) error {
					c := clientOf(m)
					if err := holdVolumes(ctx, c, like); err != nil {
						return err
					}
					return c.Prepare(ctx, like)
				})
			})
		},
	})
}

// copyDisk copies a sparse file.
func copyDisk(to, from *os.File) error {
	fi, err := from.Stat()
	if err == nil {
		err = to.Truncate(fi.Size())
	}
	if err == nil {
		err = at.CopyData(to, from, fi.Size())
	}
	return err
}

// replaceDisk makes a workload's disk a copy of a template's, or leaves it as it
// is. A lasting one is on the host's disk before it has the name: no loss of power
// leaves a file of the right size and of nothing else.
func replaceDisk(name string, from *os.File, lasting bool) (err error) {
	to, err := os.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = copyDisk(to, from)
	if err == nil && lasting {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = os.Rename(to.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(to.Name()))
	}
	return nil
}

// fromImage makes the workload s by way of a clone of an image template. It returns
// nil without an error where there is none, or none that works: then nothing is
// different from before, but that the disk, which was empty, is another empty one.
func (b Boundary) fromImage(ctx context.Context, from *source, s workload.Spec, p boundary.Prepared, r *remains, c qemu.Config) (boundary.Instance, error) {
	like, ok := nobody(s, p)
	if from == nil || from.err != nil || !ok || !blank(p.Machine) || !flows(p.Stdio, like) {
		return nil, nil
	}
	finding := trace.Step(ctx, "image template verified")
	var t *template.Template
	key, err := imageKey(from.key, like, p.Machine)
	if err == nil {
		t, err = from.store.Open(key)
	}
	finding.End()
	if err == nil {
		if err = replaceDisk(p.Machine.Data, t.Disk, !s.AutoRemove); err == nil {
			r.machine, err = b.restore(ctx, t, c, r.cgroup, p.Notice)
		}
		t.Close() // QEMU has what it needs
	}
	var i *instance
	if err == nil {
		i, err = adopt(ctx, s, p, r, like)
	}
	switch {
	case err == nil:
		return i, nil
	case errors.Is(err, template.ErrNotFound):
		return nil, nil
	case own(ctx, err):
		return nil, err
	}
	if kerr := r.giveUp(); kerr != nil {
		return nil, errors.Join(err, kerr)
	}
	if !refused(err) {
		err = discard(from.store, key, err)
	}
	if starving(err) {
		return nil, err
	}
	if p.Notice != nil {
		p.Notice("the workload is made anew, as there is no template of its image that it could go on from: " + qemu.Printable([]byte(err.Error())))
	}
	return nil, nil
}

// own tells whether an error is one that the workload gets however it is made.
func own(ctx context.Context, err error) bool {
	var source *sourceError
	return errors.As(err, &source) || ctx.Err() != nil || errors.Is(err, workload.ErrCommandNotFound) || errors.Is(err, workload.ErrNotExecutable)
}

// giveUp ends a machine that the workload does not get, if there is one.
func (r *remains) giveUp() error {
	if r.machine == nil {
		return nil
	}
	if err := r.machine.kill(); err != nil {
		return err
	}
	r.machine, r.inner = nil, nil
	r.closeVolumes()
	return nil
}

// refused tells whether a clone's agent answered, and would not: the template is
// not at fault.
func refused(err error) bool {
	var said *protocol.Error
	return errors.As(err, &said)
}

// flows tells whether the workload for nobody has the streams that are wanted.
func flows(io boundary.Stdio, like protocol.Create) bool {
	return like.Spec.Process.Terminal || like.Streams == client.StreamsOf(io)
}

// adopt has the agent give the workload for nobody to s.
func adopt(ctx context.Context, s workload.Spec, p boundary.Prepared, r *remains, like protocol.Create) (*instance, error) {
	req := protocol.Adopt{
		Of: protocol.Nobody, ID: s.ID, Hostname: s.Hostname, Args: s.Process.Args, Env: s.Process.Env, Rows: s.Process.Rows, Cols: s.Process.Cols,
	}
	var err error
	if req.Files, err = contents(p.Files); err != nil {
		return nil, err
	}
	for i, n := range p.NICs {
		req.NICs = append(req.NICs, inGuest(n, r.machine.nics[i].device))
	}
	c := clientOf(r.machine)
	sharing, shared := trace.Begin(ctx, "volumes")
	_, err = r.serveVolumes(sharing, s, p, c, like.IDBase, like.Volumes)
	shared.End()
	if err != nil {
		return nil, err
	}
	var inner *client.Instance
	err = within(ctx, createTimeout, func(ctx context.Context) (err error) {
		inner, err = c.Adopt(ctx, like, req, p.Stdio, p.Notice)
		return err
	})
	if err != nil {
		return nil, r.blame(err)
	}
	r.inner = inner
	return &instance{Instance: inner, remains: r, spec: s}, nil
}
