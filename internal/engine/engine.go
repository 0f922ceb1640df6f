// Package engine makes, runs and removes workloads, whatever isolates them. It
// is what a command line or another program drives; it holds no process of its
// own:
//
//	caller ── Engine ──starts──> bulkhead-supervisor ── boundary ── workload
//	caller ── Engine ──socket──> bulkhead-supervisor
//
// One supervisor owns one workload from its start to its end, over all restarts:
// its standard streams, its log and its exit status. It survives the caller. What is on disk is described in
// package state, what is said over the socket in package wire.
//
// A workload is created (recorded, and given its directories and its range of
// host IDs), started (a supervisor is started, which asks the boundary for the
// instance), ends, and can be started again until it is removed. Whoever finds
// a workload whose supervisor is gone cleans up after it; Open looks for such
// workloads, so that every command heals what an earlier one left.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Config says where an engine keeps its state and what it is wired to.
type Config struct {
	// Root holds what survives a reboot, RunRoot what does not. Both are made
	// with mode 0700 if missing. See DefaultRoots and RootsBelow.
	Root, RunRoot string
	// Supervisor is the path of the bulkhead-supervisor program.
	Supervisor string
	// SupervisorEnv is added to the supervisor's otherwise empty environment.
	SupervisorEnv []string
	// Boundaries are those that workloads may name. The supervisor program
	// must know the same ones.
	Boundaries []boundary.Boundary
	// Images gives the layers of images.
	Images ImageSource
	// Machines gives what virtual machines are made from; nil where no boundary
	// wants one.
	Machines MachineSource
	// Networks knows the networks that workloads join; nil where there are none.
	Networks NetworkSource
	// CgroupParent is the cgroup below which workloads and supervisors get
	// theirs; "" stands for DefaultCgroup.
	CgroupParent string
	// Warn receives one-sentence messages about things that are not the
	// caller's fault and do not stop it, such as a workload whose remains could
	// not be removed. Nil drops them.
	Warn func(message string)
}

// DefaultCgroup is above the cgroups of everything that the engine starts.
const DefaultCgroup = "/bulkhead"

// ImageSource unpacks images. The image store implements it.
type ImageSource interface {
	// Layers returns the unpacked layers of img, or fails if the image has been
	// removed. They stay on disk until release is called; Engine.ImageUsers names
	// the workload since before Layers was called, which must keep them from then on.
	Layers(ctx context.Context, img workload.Image) (layers workload.Layers, release func(), err error)
}

// MachineSource prepares what a virtual machine is made from.
type MachineSource interface {
	// Disk returns the root file system of img as one disk image. It stays on
	// disk until release is called, and from then on as Layers' result does.
	Disk(ctx context.Context, img workload.Image) (disk workload.Disk, release func(), err error)
	// DataDisk makes an empty writable disk of size bytes at path, 0 for the
	// default.
	DataDisk(ctx context.Context, path string, size int64) error
	// Start fills in what is settled right before a start: the kernel, which may
	// have been replaced by an update, the accelerator, and the file server.
	// Making a kernel ready may take long the first time.
	Start(ctx context.Context, v workload.VM, m *boundary.Machine) error
	// Started hears of a machine that a command has started.
	Started(v workload.VM, m *boundary.Machine)
	// Template makes sure that there is a saved machine which that of s can go on
	// from, and fills in p.Machine.Templates; or leaves it empty, and the machine
	// boots. Of p there are Machine, IDBase and IDCount, and Cgroup, below which
	// there is room for a cgroup of what this starts. It may take as long as a boot.
	Template(ctx context.Context, s workload.Spec, p boundary.Prepared) error
	// WarmTemplate makes sure that there is one in which the workload has been made
	// already, for machines that wait, and returns its key, or "" where there can be
	// none for s. WarmKey returns the key, and makes nothing. Both fill in
	// p.Machine.Templates.
	WarmTemplate(ctx context.Context, s workload.Spec, p boundary.Prepared) (key string, err error)
	WarmKey(ctx context.Context, s workload.Spec, p boundary.Prepared) (key string, err error)
}

// DefaultRoots returns the state directories of the calling user:
// /var/lib/bulkhead and /run/bulkhead for root, "bulkhead" below XDG_DATA_HOME
// (default ~/.local/share) and XDG_RUNTIME_DIR for others.
func DefaultRoots() (root, runRoot string, err error) {
	if os.Geteuid() == 0 {
		return "/var/lib/bulkhead", "/run/bulkhead", nil
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", "", fmt.Errorf("find the state directory: %w", err)
		}
		data = filepath.Join(home, ".local", "share")
	}
	run := os.Getenv("XDG_RUNTIME_DIR")
	if run == "" {
		return "", "", fmt.Errorf("find the run-time directory: XDG_RUNTIME_DIR is not set")
	}
	return filepath.Join(data, "bulkhead"), filepath.Join(run, "bulkhead"), nil
}

// RootsBelow returns the state directories for --root dir: both lie inside
// dir.
func RootsBelow(dir string) (root, runRoot string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", "", err
	}
	return dir, filepath.Join(dir, "run"), nil
}

// Engine is one state root, opened. Its methods may be called at the same time
// from several goroutines, and several processes may hold engines on one root.
type Engine struct {
	cfg    Config
	layout state.Layout
	// refilling is what Close waits for.
	refilling sync.WaitGroup
}

// Open makes the state directories if they are missing, and cleans up after
// supervisors that are gone and commands that were killed.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = DefaultCgroup
	}
	if cfg.Warn == nil {
		cfg.Warn = func(string) {}
	}
	for _, dir := range []string{cfg.Root, cfg.RunRoot} {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("open engine: state directory %q is not an absolute path", dir)
		}
	}
	e := &Engine{cfg: cfg, layout: state.Layout{Root: cfg.Root, Run: cfg.RunRoot}}
	rebooted, err := e.layout.Make()
	if err == nil {
		err = e.heal(ctx, rebooted)
	}
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	return e, nil
}

// Close releases what the engine holds; workloads keep running.
func (e *Engine) Close() error {
	e.refilling.Wait()
	return nil
}

// boundary returns the boundary of a name.
func (e *Engine) boundary(name string) (boundary.Boundary, error) {
	for _, b := range e.cfg.Boundaries {
		if b.Name() == name {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%w: boundary %q", workload.ErrUnsupported, name)
}

// List returns all workloads, oldest first.
func (e *Engine) List(ctx context.Context) ([]*Record, error) {
	all, err := e.layout.All()
	if err != nil {
		return nil, err
	}
	records := make([]*Record, 0, len(all))
	for _, id := range all {
		r, err := e.record(ctx, id)
		switch {
		case errors.Is(err, workload.ErrNotFound):
		case err != nil:
			e.cfg.Warn(err.Error())
		default:
			records = append(records, r)
		}
	}
	sortRecords(records)
	return records, nil
}

// ImageUsers returns what tells, as of now, which workloads were made from the
// image with a manifest digest, running or not, or being made: whoever removes an
// image asks while nobody can get its layers, see ImageSource.
func (e *Engine) ImageUsers() (func(manifest string) []string, error) { return e.layout.ImageUsers() }

// NetworkUsers returns what tells, as of now, which workloads have the network with a
// name, running or not, or being made. It looks at no networks, so that it may be asked
// while nobody else can change them.
func (e *Engine) NetworkUsers() (func(name string) []string, error) { return e.layout.NetworkUsers() }

// Inspect returns one workload. ref, here and elsewhere, is a whole ID, a name,
// or the beginning of an ID, tried in this order. The error wraps
// workload.ErrNotFound or ErrAmbiguous.
func (e *Engine) Inspect(ctx context.Context, ref string) (*Record, error) {
	id, err := e.layout.Find(ref)
	if err != nil {
		return nil, err
	}
	r, err := e.record(ctx, id)
	if errors.Is(err, workload.ErrNotFound) {
		err = notFound(ref)
	}
	return r, err
}

// about says what could not be done with a workload. That there is none, or not
// any more because another command removes it at this moment, is all that needs
// saying then, in the words of the caller and not of the step that noticed.
func about(what, ref string, err error) error {
	if errors.Is(err, workload.ErrNotFound) {
		return notFound(ref)
	}
	return fmt.Errorf("%s workload %s: %w", what, ref, err)
}

func notFound(ref string) error { return fmt.Errorf("%w: %q", workload.ErrNotFound, ref) }

// record reads one workload's record, and cleans up first if its supervisor is
// gone. A workload whose creation is not finished does not exist.
func (e *Engine) record(ctx context.Context, id workload.ID) (*Record, error) {
	st, err := e.layout.ReadState(id)
	if err == nil && st.Live() {
		var k *state.Lock
		if k, err = e.layout.TryLock(id); err == nil {
			err = e.recover(ctx, id)
			k.Unlock()
		}
		if err == nil || errors.Is(err, state.ErrLocked) {
			st, err = e.layout.ReadState(id)
		}
	}
	var spec *workload.Spec
	if err == nil {
		spec, err = e.layout.ReadSpec(id)
	}
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: %s", workload.ErrNotFound, id.Short())
	}
	if err != nil {
		return nil, err
	}
	return e.newRecord(spec, st), nil
}
