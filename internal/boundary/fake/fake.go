// Package fake is a boundary that isolates nothing and runs nothing: its
// workloads are goroutines that interpret a small command language. It lets
// the engine and its supervisor be tested without privileges, fast and under
// the race detector.
//
// What a real boundary leaves behind when its process dies, such as cgroups and
// mounts, is here a file for each instance in a directory, the World: it appears with
// Create and goes with Delete, so a test can see what was leaked.
package fake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Boundary implements boundary.Boundary.
type Boundary struct {
	// World is an existing directory, see above; "" for none.
	World string
	// Failing is an error that Check returns.
	Failing error
}

// Name returns "fake".
func (b *Boundary) Name() string { return "fake" }

// Check returns b.Failing.
func (b *Boundary) Check(context.Context) error { return b.Failing }

// Needs asks for what a container needs.
func (b *Boundary) Needs(workload.Spec) boundary.Needs {
	return boundary.Needs{IDRange: true, Network: boundary.Namespace}
}

// Create makes an instance whose first process is s.Process.
func (b *Boundary) Create(_ context.Context, s workload.Spec, p boundary.Prepared) (boundary.Instance, error) {
	in := &instance{id: s.ID, dir: p.Dir, world: b.World, hostname: s.Hostname, limits: s.Resources, hostNet: s.Network == workload.NetworkHost}
	// Whoever comes after us must find the instance before there is anything to find.
	if err := os.WriteFile(in.marker(), nil, 0o600); err != nil {
		return nil, fmt.Errorf("create fake instance: %w", err)
	}
	var err error
	if b.World != "" {
		err = os.WriteFile(in.thing(), nil, 0o600)
	}
	if err == nil {
		err = in.files(p)
	}
	if err == nil {
		in.first, err = in.newProcess(s.Process, p.Stdio)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create fake instance: %w", err), in.Delete(context.Background()))
	}
	return in, nil
}

// Open returns what an earlier process created, or workload.ErrNotFound.
func (b *Boundary) Open(_ context.Context, id workload.ID, dir string) (boundary.Instance, error) {
	in := &instance{id: id, dir: dir, world: b.World}
	if _, err := os.Lstat(in.marker()); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = workload.ErrNotFound
		}
		return nil, fmt.Errorf("open fake instance: %w", err)
	}
	return in, nil
}

type instance struct {
	id         workload.ID
	dir, world string
	hostname   string
	hostNet    bool
	first      *process
	*boundary.Tree

	mu      sync.Mutex
	running []*process
	paused  bool
	deleted bool
	netns   *os.File        // nil before it is asked for
	flags   map[string]bool // what "set" has set
	limits  workload.Resources
}

func (in *instance) marker() string { return filepath.Join(in.dir, "fake") }
func (in *instance) thing() string  { return filepath.Join(in.world, string(in.id)) }

// Start lets the first process run.
func (in *instance) Start(context.Context) error { return in.start(in.first) }

func (in *instance) start(p *process) error {
	if err := p.find(); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.deleted {
		return workload.ErrNotRunning
	}
	in.running = append(in.running, p)
	go func() {
		p.run()
		in.mu.Lock()
		in.running = slices.DeleteFunc(in.running, func(q *process) bool { return q == p })
		in.mu.Unlock()
		if p == in.first {
			in.kill() // as the end of a pid namespace's first process does
		}
		close(p.ended)
	}()
	return nil
}

// Exec runs another process.
func (in *instance) Exec(_ context.Context, w workload.Process, io boundary.Stdio) (boundary.Process, error) {
	p, err := in.newProcess(w, io)
	if err != nil {
		return nil, err
	}
	if err := in.start(p); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// kill ends all processes.
func (in *instance) kill() {
	in.mu.Lock()
	all := slices.Clone(in.running)
	in.mu.Unlock()
	for _, p := range all {
		p.deliver(syscall.SIGKILL)
	}
}

// Delete ends everything.
func (in *instance) Delete(context.Context) error {
	if in.Tree != nil {
		in.Tree.Close()
	}
	in.mu.Lock()
	in.deleted = true
	all := slices.Clone(in.running)
	in.mu.Unlock()
	in.kill()
	for _, p := range all {
		<-p.ended
	}
	if in.first != nil {
		in.first.close()
	}
	if in.netns != nil {
		in.netns.Close()
	}
	var err error
	if in.world != "" {
		err = os.Remove(in.thing())
	}
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = os.Remove(in.marker())
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete fake instance: %w", err)
	}
	return nil
}

// Wait waits for the first process.
func (in *instance) Wait(ctx context.Context) (workload.Exit, error) { return in.first.Wait(ctx) }

// Signal signals the first process.
func (in *instance) Signal(ctx context.Context, sig syscall.Signal) error {
	if in.first == nil {
		return nil // opened after its creator died: there is no process
	}
	return in.first.Signal(ctx, sig)
}

// Terminal is the first process's.
func (in *instance) Terminal() boundary.Terminal { return in.first.Terminal() }

// PID has no meaning here.
func (in *instance) PID() int { return 0 }

// Pause and Resume are noted and have no effect on the goroutines.
func (in *instance) Pause(context.Context) error  { return in.setPaused(true) }
func (in *instance) Resume(context.Context) error { return in.setPaused(false) }

func (in *instance) setPaused(to bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.paused == to {
		return fmt.Errorf("paused is %v already", to)
	}
	in.paused = to
	return nil
}

// Processes numbers the running processes from 1.
func (in *instance) Processes(context.Context) ([]int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	var out []int
	for i := range in.running {
		out = append(out, i+1)
	}
	return out, nil
}
