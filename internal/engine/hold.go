package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// held is a workload that does not run, with a supervisor that has created it
// for the sake of its files. It holds the workload's lock.
type held struct {
	e    *Engine
	sup  *starting
	lock *state.Lock
	spec *workload.Spec
}

// hold creates a workload without starting it. workload.ErrRunning tells that it
// runs by now.
func (e *Engine) hold(ctx context.Context, id workload.ID) (_ *held, err error) {
	k, err := e.lockIdle(ctx, id)
	if err != nil {
		return nil, err
	}
	h := &held{e: e, lock: k}
	defer func() {
		if err != nil {
			h.sup.abandon()
			err = errors.Join(err, h.clean(context.WithoutCancel(ctx)))
		}
	}()
	if h.spec, err = e.layout.ReadSpec(id); err != nil {
		return nil, err
	}
	if h.spec.VM.Machine {
		return nil, fmt.Errorf("%w: a tenant's machine has no files of its own", workload.ErrUnsupported)
	}
	st, err := e.layout.ReadState(id)
	if err != nil {
		return nil, err
	}
	if st.IDCount > 0 {
		// Another root may have taken the range since a reboot.
		if err := e.layout.IDs().Claim(st.IDBase); err != nil {
			return nil, err
		}
	}
	st.Held = true
	if err := e.layout.WriteState(id, st, true); err != nil {
		return nil, err
	}
	if err := os.Mkdir(e.layout.RunDir(id), 0o700); err != nil {
		return nil, err
	}
	state.Did("hold: run-time directory made")
	if h.sup, err = e.spawn(ctx, h.spec, k); err != nil {
		return nil, err
	}
	created := heldSpec(*h.spec) // whose machine has no interfaces, so another template
	if err := e.readyMachine(ctx, &created, st); err != nil {
		return nil, err
	}
	return h, h.ask(ctx, st)
}

// ask tells the supervisor to create the instance.
func (h *held) ask(ctx context.Context, st *state.State) error {
	spec, err := h.e.resolveVolumes(ctx, h.spec)
	if err != nil {
		return err
	}
	l := h.e.layout
	req := wire.Request{
		Version: wire.Version, Op: wire.OpStart,
		// Init stands for a program that is certain to exist; it is never executed.
		Start: &wire.Start{Root: l.Root, Run: l.Run, Spec: heldSpec(spec), State: *st, Init: h.e.cfg.Supervisor, Hold: true},
	}
	if _, err = newConn(h.sup.conn).ask(ctx, &req); errors.Is(err, errGone) {
		err = fmt.Errorf("%w%s", workload.ErrSupervisorLost, h.e.lastWords(h.spec.ID))
	}
	return err
}

// heldSpec is what is created in the place of s: the same files and mounts, with
// no network, and a first process that is certain to exist and is never started
// in the place of one that may yet have to be copied in.
func heldSpec(s workload.Spec) workload.Spec {
	s.Process = workload.Process{Args: []string{"/dev/init"}, Cwd: "/", User: "0:0"}
	s.Init = true
	s.Network, s.Networks, s.Ports = workload.NetworkNone, nil, nil
	s.KeepStdin = false
	s.Health, s.Restart = workload.Health{}, workload.Restart{}
	s.AutoRemove = false // its end is not this one
	return s
}

// close ends the holding. The supervisor removes the instance.
func (h *held) close(ctx context.Context) error {
	h.sup.conn.Close()
	<-h.sup.exited
	return h.clean(ctx)
}

// clean removes what a supervisor that is gone may have left, and gives the lock
// back.
func (h *held) clean(ctx context.Context) error {
	defer h.lock.Unlock()
	if h.spec == nil {
		return nil
	}
	id := h.spec.ID
	if err := h.e.deleteBoundary(ctx, id); err != nil {
		return err
	}
	if err := os.RemoveAll(h.e.layout.RunDir(id)); err != nil {
		return err
	}
	st, err := h.e.layout.ReadState(id)
	if err != nil || !st.Held {
		return err
	}
	st.Held = false
	return h.e.layout.WriteState(id, st, true)
}
