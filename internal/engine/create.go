package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Create records a new workload and prepares what it needs, without starting
// anything. An empty s.ID, s.Name and a zero s.Created are filled in. The error
// wraps workload.ErrNameTaken, idrange.ErrExhausted, or what the image source
// and the boundary's Check returned. On error nothing is left behind.
func (e *Engine) Create(ctx context.Context, s workload.Spec) (*Record, error) {
	p, err := e.prepare(ctx, &s, nil)
	if err != nil {
		return nil, fmt.Errorf("create workload: %w", err)
	}
	defer p.lock.Unlock()
	defer p.release()
	if err = e.layout.WriteState(s.ID, &p.state, true); err == nil {
		state.Did("create: state written")
		err = e.layout.Reserve(s.ID, &p.state)
	}
	if err == nil {
		err = e.layout.Sync(s.ID)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create workload: %w", err), e.rollback(s.ID), e.dropVolumes(p))
	}
	if err := os.RemoveAll(e.layout.RunDir(s.ID)); err != nil {
		return nil, fmt.Errorf("create workload: %w", err)
	}
	state.Did("create: run-time directory removed")
	e.layout.Happened(&s, "create")
	return e.newRecord(&s, &p.state), nil
}

// prepared is a workload whose creation waits for its first state.json.
type prepared struct {
	lock    *state.Lock
	state   state.State
	release func() // lets the image store remove the layers

	volumes  []string // those that were made for it
	borrowed []string // another workload's anonymous ones, which it must find there
}

// prepare takes all steps of creation but the last, which is to write the
// state: until then a workload does not exist for others, and whoever finds it with a
// free lock removes it. reserved, if not nil, is called when the name is the
// workload's and its run-time directory exists.
func (e *Engine) prepare(ctx context.Context, s *workload.Spec, reserved func(*state.Lock) error) (*prepared, error) {
	b, err := e.boundary(s.Boundary)
	if err != nil {
		return nil, err
	}
	checking := trace.Step(ctx, "boundary and networks checked")
	defer checking.End()
	if err := b.Check(ctx); err != nil {
		return nil, err
	}
	needs := b.Needs(*s)
	if needs.Root == boundary.Disk && e.cfg.Machines == nil {
		return nil, fmt.Errorf("%w: boundary %q wants a disk image", workload.ErrUnsupported, s.Boundary)
	}
	if err := e.checkNetworks(ctx, s); err != nil {
		return nil, err
	}
	checking.End()
	if s.ID == "" {
		s.ID = workload.NewID()
	}
	if s.Created.IsZero() {
		s.Created = time.Now()
	}
	if s.Hostname == "" && !s.Namespaces.HostUTS {
		s.Hostname = s.ID.Short()
	}
	p := &prepared{release: func() {}, borrowed: nameVolumes(s)}
	reserving := trace.Step(ctx, "name taken, specification written")
	p.lock, err = e.reserve(s)
	reserving.End()
	if err != nil {
		return nil, err
	}
	err = func() error {
		if reserved != nil {
			if err := reserved(p.lock); err != nil {
				return err
			}
		}
		return e.fill(ctx, s, needs, p)
	}()
	if err != nil {
		p.release()
		err = errors.Join(err, e.rollback(s.ID), e.dropVolumes(p))
		p.lock.Unlock()
		return nil, err
	}
	return p, nil
}

// reserve makes the directories of a new workload, takes its lock and its name,
// and writes its spec.
func (e *Engine) reserve(s *workload.Spec) (*state.Lock, error) {
	if _, err := workload.ParseID(string(s.ID)); err != nil {
		return nil, err
	}
	generated := s.Name == ""
	if !generated {
		if err := checkName(s); err != nil {
			return nil, err
		}
	}
	var k *state.Lock
	err := e.layout.Exclusive(func() error {
		name := s.Name
		for n := 0; ; n++ {
			if generated {
				name = randomName(n)
			}
			if err := e.layout.NameFree(name); err == nil {
				break
			} else if !generated || !errors.Is(err, workload.ErrNameTaken) {
				return err
			}
		}
		s.Name = name
		if err := os.Mkdir(e.layout.RunDir(s.ID), 0o700); err != nil {
			return err
		}
		state.Did("create: run-time directory made")
		err := os.Mkdir(e.layout.Dir(s.ID), 0o700)
		if err != nil {
			return errors.Join(err, os.Remove(e.layout.RunDir(s.ID)))
		}
		state.Did("create: directory made")
		if k, err = e.layout.NewLock(s.ID); err == nil {
			state.Did("create: locked")
			err = os.Symlink(string(s.ID), e.layout.Name(name))
		}
		if err == nil {
			state.Did("create: name taken")
		}
		return err
	})
	if err == nil {
		if err = e.layout.WriteSpec(s); err == nil {
			state.Did("create: spec written")
			return k, nil
		}
	}
	if _, lerr := os.Lstat(e.layout.Dir(s.ID)); lerr == nil {
		err = errors.Join(err, e.rollback(s.ID))
	}
	if k != nil {
		k.Unlock()
	}
	return nil, err
}

// fill gives a reserved workload its ID range, layers and directories.
func (e *Engine) fill(ctx context.Context, s *workload.Spec, needs boundary.Needs, p *prepared) error {
	dir := e.layout.Dir(s.ID)
	p.state = state.State{Status: workload.Created, Cgroup: e.cfg.CgroupParent + "/" + string(s.ID)}
	if needs.IDRange {
		allocating := trace.Step(ctx, "range of IDs taken")
		r, err := e.layout.AllocateIDs(string(s.ID))
		allocating.End()
		if err != nil {
			return err
		}
		p.state.IDBase, p.state.IDCount = r.Base, r.Count
		state.Did("create: IDs allocated")
	}
	fill := e.fillLayers
	if needs.Root == boundary.Disk {
		fill = e.fillMachine
	}
	if err := fill(ctx, s, needs, p); err != nil {
		return err
	}
	if s.VM.Machine {
		return nil
	}
	if err := e.makeVolumes(ctx, s, p); err != nil {
		return err
	}
	defer trace.Step(ctx, "network's files written").End()
	var err error
	if p.state.Files, err = makeFiles(filepath.Join(dir, "files"), s, &p.state); err != nil {
		return fmt.Errorf("make the workload's network files: %w", err)
	}
	state.Did("create: files made")
	return nil
}

// fillLayers prepares a root file system of layers.
func (e *Engine) fillLayers(ctx context.Context, s *workload.Spec, needs boundary.Needs, p *prepared) error {
	unpacking, unpacked := trace.Begin(ctx, "image's layers unpacked")
	layers, release, err := e.cfg.Images.Layers(unpacking, s.Image)
	unpacked.End()
	if err != nil {
		return err
	}
	p.state.Layers, p.release = layers.Dirs, release
	if err := checkIDs(needs, layers.MaxID, p); err != nil {
		return err
	}
	defer trace.Step(ctx, "writable layer made").End()
	dir := e.layout.Dir(s.ID)
	p.state.Upper, p.state.Work = filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if err := makeUpper(&p.state); err != nil {
		return fmt.Errorf("make the writable layer: %w", err)
	}
	state.Did("create: upper made")
	return nil
}

// checkIDs makes sure that every owner of the image has an ID in the workload.
func checkIDs(needs boundary.Needs, highest uint32, p *prepared) error {
	if needs.IDRange && highest >= p.state.IDCount {
		return fmt.Errorf("%w: the image has files of user or group %d, and a workload has the IDs 0 to %d; --userns host runs it without a user namespace",
			workload.ErrUnsupported, highest, p.state.IDCount-1)
	}
	return nil
}

// makeUpper makes the overlay's writable directories. The root of an overlay
// shows the attributes of its upper directory, so this gets those of the
// highest layer's, with the owner moved into the workload's range.
func makeUpper(st *state.State) error {
	mode, uid, gid := os.FileMode(0o755), uint32(0), uint32(0)
	if n := len(st.Layers); n > 0 {
		fi, err := os.Stat(st.Layers[n-1])
		if err != nil {
			return err
		}
		sys := fi.Sys().(*syscall.Stat_t)
		mode, uid, gid = fi.Mode()&(os.ModePerm|os.ModeSticky|os.ModeSetgid), sys.Uid, sys.Gid
		if st.IDCount > 0 && (uid >= st.IDCount || gid >= st.IDCount) {
			return fmt.Errorf("the image's root directory belongs to user %d, group %d: want less than %d", uid, gid, st.IDCount)
		}
	}
	if err := os.Mkdir(st.Upper, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(st.Work, 0o700); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := os.Lchown(st.Upper, int(st.IDBase+uid), int(st.IDBase+gid)); err != nil {
			return err
		}
		if err := os.Lchown(st.Work, int(st.IDBase), int(st.IDBase)); err != nil {
			return err
		}
	}
	// After the owner: chown clears the setgid bit.
	return os.Chmod(st.Upper, mode)
}

// Explain writes what starting the workload s would do, and makes nothing. The
// ID range it shows is the first one that could be used.
func (e *Engine) Explain(ctx context.Context, s workload.Spec, w io.Writer) error {
	b, err := e.boundary(s.Boundary)
	if err != nil {
		return err
	}
	x, ok := b.(boundary.Explainer)
	if !ok {
		return fmt.Errorf("%w: boundary %q cannot explain what it does", workload.ErrUnsupported, s.Boundary)
	}
	if s.ID == "" {
		s.ID = workload.NewID()
	}
	if s.Hostname == "" && !s.Namespaces.HostUTS {
		s.Hostname = s.ID.Short()
	}
	s = e.explainVolumes(s)
	dir := e.layout.Dir(s.ID)
	p := boundary.Prepared{
		Dir:   e.layout.RunDir(s.ID),
		Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		Files:  filePaths(filepath.Join(dir, "files"), &s),
		Cgroup: e.cfg.CgroupParent + "/" + string(s.ID),
		Init:   e.initProgram(),
	}
	if b.Needs(s).IDRange {
		r, err := e.layout.IDs().Peek()
		if err != nil {
			return err
		}
		p.IDBase, p.IDCount = r.Base, r.Count
	}
	if b.Needs(s).Root == boundary.Disk {
		p.Upper, p.Work = "", ""
		release, err := e.explainMachine(ctx, s, &p)
		if err != nil {
			return err
		}
		defer release()
		return x.Explain(s, p, w)
	}
	layers, release, err := e.cfg.Images.Layers(ctx, s.Image)
	if err != nil {
		return err
	}
	defer release()
	p.Layers = layers.Dirs
	return x.Explain(s, p, w)
}
