package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/logfile"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Attach connects io to the first process of a running workload. Output from
// before is in the log, not here. The error wraps workload.ErrNotRunning.
func (e *Engine) Attach(ctx context.Context, ref string, io *Streams) (*Session, error) {
	if io == nil {
		io = &Streams{}
	}
	s, err := e.connect(ctx, ref, &wire.Request{Op: wire.OpAttach, Rows: io.Rows, Cols: io.Cols}, io)
	if err != nil {
		return nil, about("attach to", ref, err)
	}
	return s, nil
}

// Exec runs another process in a running workload. p is complete, as in a Spec:
// nothing of the workload's own environment, directory or user is added
// (start from Record.Spec.Process). With a nil io the process runs unattended
// and its output is dropped. The error wraps workload.ErrNotRunning,
// ErrCommandNotFound or ErrNotExecutable, among others.
func (e *Engine) Exec(ctx context.Context, ref string, p workload.Process, io *Streams) (*Session, error) {
	req := &wire.Request{Op: wire.OpExec, Exec: &wire.Exec{Process: p}, Streams: io != nil}
	if io != nil {
		req.Exec.Stdin = io.In != nil
		if p.Terminal && io.Rows > 0 {
			req.Exec.Process.Rows, req.Exec.Process.Cols = io.Rows, io.Cols
		}
	}
	s, err := e.connect(ctx, ref, req, io)
	if err != nil {
		return nil, about("execute in", ref, err)
	}
	return s, nil
}

// connect opens a session with a running workload.
func (e *Engine) connect(ctx context.Context, ref string, req *wire.Request, io *Streams) (*Session, error) {
	r, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	c, reply, err := e.call(ctx, r.Spec.ID, req, true)
	if err != nil {
		return nil, err
	}
	return newSession(ctx, e, c, r, reply, io), nil
}

// ask finds a workload and asks its supervisor.
func (e *Engine) ask(ctx context.Context, ref string, req *wire.Request) (*wire.Reply, error) {
	id, err := e.layout.Find(ref)
	if err != nil {
		return nil, err
	}
	_, reply, err := e.call(ctx, id, req, false)
	return reply, err
}

// Kill sends sig to the first process of a running or paused workload.
func (e *Engine) Kill(ctx context.Context, ref string, sig syscall.Signal) error {
	if _, err := e.ask(ctx, ref, &wire.Request{Op: wire.OpSignal, Signal: sig}); err != nil {
		return about("kill", ref, err)
	}
	return nil
}

// Stop sends the workload's stop signal, and SIGKILL to all of it when it has
// not ended after timeout; nil stands for the workload's own StopTimeout, and a
// negative timeout waits without end. It returns when the workload has ended;
// one that is not running is no error.
func (e *Engine) Stop(ctx context.Context, ref string, timeout *time.Duration) error {
	return e.StopBy(ctx, ref, timeout, 0)
}

// StopBy is Stop with another signal than the workload's; 0 is its own.
func (e *Engine) StopBy(ctx context.Context, ref string, timeout *time.Duration, sig syscall.Signal) error {
	r, err := e.Inspect(ctx, ref)
	if err != nil {
		return about("stop", ref, err)
	}
	req := &wire.Request{Op: wire.OpStop, Timeout: r.Spec.StopTimeout, Signal: sig}
	if timeout != nil {
		req.Timeout = *timeout
	}
	_, _, err = e.call(ctx, r.Spec.ID, req, false)
	if ended(err) {
		return nil
	}
	if err != nil {
		return about("stop", ref, err)
	}
	return nil
}

// ended reports whether err says that the workload has ended, or was removed
// at its end.
func ended(err error) bool {
	return errors.Is(err, workload.ErrNotRunning) || errors.Is(err, workload.ErrNotFound)
}

// Wait returns how the workload ended, at once if it is not running. One that
// never ran gives workload.ErrNotRunning. Where a restart policy brings the
// workload back, the end of one run is enough.
func (e *Engine) Wait(ctx context.Context, ref string) (workload.Exit, error) {
	return e.wait(ctx, ref, wire.UntilExit)
}

func (e *Engine) wait(ctx context.Context, ref string, until wire.Until) (workload.Exit, error) {
	id, err := e.layout.Find(ref)
	if err != nil {
		return workload.Exit{}, about("wait for", ref, err)
	}
	var exit workload.Exit
	err = e.reach(ctx, id, func(f *os.File) error {
		defer f.Close()
		var err error
		exit, err = waitOn(ctx, newConn(f), until)
		return err
	})
	if errors.Is(err, workload.ErrNotRunning) {
		st, rerr := e.layout.ReadState(id)
		if rerr == nil && st.Exit != nil {
			return *st.Exit, nil
		}
	}
	if err != nil {
		return workload.Exit{}, about("wait for", ref, err)
	}
	return exit, nil
}

// waitOn asks a supervisor to be told of the end.
func waitOn(ctx context.Context, c *conn, until wire.Until) (exit workload.Exit, err error) {
	stop := context.AfterFunc(ctx, func() { c.f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := wire.AppendJSON(nil, wire.TypeRequest, &wire.Request{Version: wire.Version, Op: wire.OpWait, Until: until})
	if err == nil {
		_, err = c.f.Write(b)
	}
	if err == nil || errors.Is(err, syscall.EPIPE) {
		var t wire.Type
		var payload []byte
		if t, payload, err = c.r.Next(); err == nil {
			switch t {
			case wire.TypeExit:
				err = wire.Decode(payload, &exit)
			case wire.TypeReply:
				var reply wire.Reply
				if err = wire.Decode(payload, &reply); err == nil && reply.Error != nil {
					err = reply.Error
				}
			default:
				err = fmt.Errorf("%w: unexpected frame of type %d", wire.ErrProtocol, t)
			}
		}
	}
	if ctx.Err() != nil {
		return exit, ctx.Err()
	}
	return exit, gone(err)
}

// Remove removes a workload and everything that belongs to it. One that is
// running or paused gives workload.ErrRunning, unless force is set, which kills
// it first.
func (e *Engine) Remove(ctx context.Context, ref string, force bool) error {
	return e.RemoveWith(ctx, ref, RemoveOptions{Force: force})
}

// RemoveOptions say how and what to remove with a workload.
type RemoveOptions struct {
	Force   bool // kill it first if it runs
	Volumes bool // its anonymous volumes too, as far as no other workload has them
}

// RemoveWith is Remove with more to say. The anonymous volumes of a workload that
// was to be removed at its end go in any case.
func (e *Engine) RemoveWith(ctx context.Context, ref string, o RemoveOptions) error {
	force := o.Force
	id, err := e.layout.Find(ref)
	if err != nil {
		return about("remove", ref, err)
	}
	err = state.Retry(ctx, func() error {
		if done, err := e.removeUnreadable(ctx, id); done || err != nil {
			return err
		}
		k, err := e.lockIdle(ctx, id)
		if force && errors.Is(err, workload.ErrRunning) {
			// Before it is killed: what is not removed shall go on running.
			if spec, err := e.layout.ReadSpec(id); err == nil {
				if err := e.checkDeserted(ctx, spec); err != nil {
					return err
				}
			}
			if _, _, err := e.call(ctx, id, &wire.Request{Op: wire.OpStop}, false); err != nil && !ended(err) {
				return err
			}
			return state.ErrLocked // its supervisor is about to end
		}
		if err != nil {
			return err
		}
		defer k.Unlock()
		return e.removeIdle(ctx, id, o.Volumes)
	})
	if force && errors.Is(err, workload.ErrNotFound) {
		return nil // it was to be removed at its end
	}
	if err != nil {
		return about("remove", ref, err)
	}
	return nil
}

// removeUnreadable removes a workload whose record is damaged, or of a version that this
// one does not know, which is no reason to keep it. done is false where it can be read.
// What the record would tell is tried: all boundaries, all names and ranges of IDs. Its
// anonymous volumes stay.
func (e *Engine) removeUnreadable(ctx context.Context, id workload.ID) (done bool, err error) {
	if e.unreadable(id) == nil {
		return false, nil
	}
	k, err := e.lock(ctx, id)
	if errors.Is(err, workload.ErrRunning) {
		return false, nil // it may have to be ended first
	}
	if err != nil {
		return false, err
	}
	defer k.Unlock()
	if e.unreadable(id) != nil {
		_ = e.recover(ctx, id) // which may bring the version before back
	}
	why := e.unreadable(id)
	if why == nil {
		return false, nil
	}
	names, err := e.namesOf(id)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if err := e.checkDeserted(ctx, &workload.Spec{ID: id, Name: name, VM: workload.VM{Machine: strings.HasPrefix(name, tenantMark)}}); err != nil {
			return false, err
		}
	}
	e.warn(why)
	if err := e.deleteAny(ctx, id); err != nil {
		return false, fmt.Errorf("clean up after workload %s, whose record cannot be read: %w", id.Short(), err)
	}
	return true, e.erase(id)
}

// unreadable tells why a workload's record cannot be read; nil where it can be, or
// where there is none, or none yet.
func (e *Engine) unreadable(id workload.ID) error {
	_, err := e.layout.ReadState(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it may be restored, or was never finished
	}
	if err == nil {
		_, err = e.layout.ReadSpec(id)
	}
	if _, lerr := os.Lstat(e.layout.Dir(id)); lerr != nil {
		return nil
	}
	return err
}

// deleteAny lets every boundary remove what it may have made of a workload.
func (e *Engine) deleteAny(ctx context.Context, id workload.ID) error {
	ctx, cancel := context.WithTimeout(ctx, healing)
	defer cancel()
	for _, b := range e.cfg.Boundaries {
		if err := e.deleteInstance(ctx, &workload.Spec{ID: id, Boundary: b.Name()}, e.layout.RunDir(id)); err != nil {
			return err
		}
	}
	if e.cfg.Networks == nil {
		return nil
	}
	return e.cfg.Networks.Release(ctx, id)
}

// removeIdle removes a workload that has no supervisor and whose lock is held.
func (e *Engine) removeIdle(ctx context.Context, id workload.ID, volumes bool) error {
	spec, err := e.layout.ReadSpec(id)
	if err != nil {
		return err
	}
	st, err := e.layout.ReadState(id)
	if err != nil {
		return err
	}
	if err := e.checkDeserted(ctx, spec); err != nil {
		return err
	}
	e.warn(e.removeData(ctx, spec))
	if volumes || spec.AutoRemove {
		e.warn(e.layout.DropVolumes(id))
	}
	if err := e.layout.Remove(id, spec.Name, st.IDBase); err != nil {
		return err
	}
	e.layout.Happened(spec, "destroy")
	return nil
}

// Pause stops all processes of a running workload. The error wraps
// workload.ErrUnsupported where the boundary cannot.
func (e *Engine) Pause(ctx context.Context, ref string) error {
	if _, err := e.ask(ctx, ref, &wire.Request{Op: wire.OpPause}); err != nil {
		return about("pause", ref, err)
	}
	return nil
}

// Unpause lets a paused workload continue.
func (e *Engine) Unpause(ctx context.Context, ref string) error {
	if _, err := e.ask(ctx, ref, &wire.Request{Op: wire.OpResume}); err != nil {
		return about("unpause", ref, err)
	}
	return nil
}

// Processes returns the host IDs of all processes of a running workload.
func (e *Engine) Processes(ctx context.Context, ref string) ([]int, error) {
	reply, err := e.ask(ctx, ref, &wire.Request{Op: wire.OpProcesses})
	if err != nil {
		return nil, about("list processes of", ref, err)
	}
	return reply.Processes, nil
}

// LogOptions selects a part of a log.
type LogOptions struct {
	Follow       bool      // continue until the workload ends
	Tail         int       // only the last lines; negative for all
	Since, Until time.Time // zero for no bound
	Timestamps   bool      // RFC 3339 with nanoseconds before each line
}

// ErrNoLog tells that a workload's output is not kept.
var ErrNoLog = errors.New("its output is not kept")

// Logs writes the output of a workload that is still kept, each stream to its
// own writer; nil drops one. Without Timestamps the bytes are those that the
// workload wrote.
func (e *Engine) Logs(ctx context.Context, ref string, o LogOptions, stdout, stderr io.Writer) error {
	r, err := e.Inspect(ctx, ref)
	if err != nil {
		return about("read the log of", ref, err)
	}
	if r.Spec.Log.Driver == workload.LogNone {
		return about("read the log of", ref, ErrNoLog)
	}
	lo := logfile.Options{Files: r.Spec.Log.MaxFiles, Tail: o.Tail, Since: o.Since, Until: o.Until, Timestamps: o.Timestamps}
	if o.Follow {
		ended := make(chan struct{})
		wctx, cancel := context.WithCancel(ctx)
		if !o.Until.IsZero() {
			wctx, cancel = context.WithDeadline(ctx, o.Until) // one that is over ends it at once
		}
		defer func() { cancel(); <-ended }()
		go func() {
			defer close(ended)
			e.wait(wctx, string(r.Spec.ID), wire.UntilStopped) // any error ends the following, too
		}()
		lo.Follow = ended
	}
	err = logfile.Read(ctx, r.LogPath, lo, stdout, stderr)
	if _, serr := os.Lstat(r.Dir); err != nil && errors.Is(serr, os.ErrNotExist) {
		return notFound(ref) // it was removed meanwhile
	}
	return err
}
