// Package agent is the half of a guest's agent that serves the host: it makes
// any number of workloads, each by a boundary.Boundary, the very one that makes
// containers on the host, and lets the host start, signal, execute and delete.
// What belongs to the machine, disks and clock and power, is asked of a Guest.
//
// The host is trusted to decide, not to be well-formed: no message makes the
// agent panic, wait for ever, or leave its directories.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Config is what an agent is made of. Guest, Boundary and RunDir are needed.
type Config struct {
	Guest Guest
	// Boundary makes the workloads.
	Boundary boundary.Boundary
	// System makes a workload that is a whole system (Spec.VM.System); nil where
	// there is none.
	System boundary.Boundary
	// RunDir is an existing directory, best on a tmpfs, mode 0700, for a
	// directory of each workload.
	RunDir string
	// Cgroup is the parent of the workloads' cgroups; "/bulkhead" if empty.
	Cgroup string
	// Init is the program bulkhead-init, for workloads with Spec.Init.
	Init string
	// Kernel is the guest kernel's release, Version the agent's own.
	Kernel, Version string
	// OOMScoreAdj is for workloads that ask for none, see proc_pid_oom_score_adj(5):
	// what they would inherit is the agent's own.
	OOMScoreAdj *int
	// Log takes a line for the guest's console; nil drops it.
	Log func(line string)
}

// Agent serves sessions. A workload belongs to the stream that it was created
// on, and so to that stream's session.
type Agent struct {
	Config

	mu        sync.Mutex
	workloads map[workload.ID]*entry
	had       map[workload.ID]bool   // what may have written data that nobody has removed
	blanks    map[workload.ID]*built // of OpPrepare, until they are adopted
	volumes   map[string]*volume     // by name
}

// New returns an agent without workloads.
func New(c Config) *Agent {
	if c.Cgroup == "" {
		c.Cgroup = "/bulkhead"
	}
	if c.Log == nil {
		c.Log = func(string) {}
	}
	return &Agent{
		Config: c, workloads: map[workload.ID]*entry{}, had: map[workload.ID]bool{}, blanks: map[workload.ID]*built{}, volumes: map[string]*volume{},
	}
}

// Serve serves one session over conn, which it owns, with a new agent.
func Serve(ctx context.Context, conn io.ReadWriteCloser, c Config) error {
	return New(c).Serve(ctx, conn)
}

// Serve serves one session over conn, which it owns. It returns when the
// session has ended and its workloads are gone. Ending ctx ends the session.
func (a *Agent) Serve(ctx context.Context, conn io.ReadWriteCloser) error {
	s, err := protocol.Guest(ctx, conn, protocol.Hello{Kernel: a.Kernel, Agent: a.Version})
	if err != nil {
		return err
	}
	var streams sync.WaitGroup
	defer a.discard()
	defer streams.Wait()
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	for {
		st, err := s.Accept()
		switch {
		case err == nil:
			streams.Go(func() { a.serve(st) })
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, protocol.ErrEnded):
			return nil
		default:
			return fmt.Errorf("session with the host: %w", err)
		}
	}
}

// patience is how long the agent waits for what should take milliseconds, after
// whoever asked for it is gone.
const patience = time.Minute

// stream is one stream and what belongs to it.
type stream struct {
	*protocol.Stream
	r *protocol.Reader
	w *protocol.Writer
}

// serve serves one stream to its end.
func (a *Agent) serve(conn *protocol.Stream) {
	st := &stream{conn, protocol.NewReader(conn), protocol.NewWriter(conn)}
	defer st.Close()
	defer func() {
		// A mistake in serving one stream must not end every workload of the
		// machine, as the end of its first process would.
		if p := recover(); p != nil {
			a.Log(fmt.Sprintf("a stream was given up: %v\n%s", p, debug.Stack()))
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		<-conn.Done()
	}()
	req, err := st.r.Request()
	if err != nil {
		if errors.Is(err, protocol.ErrProtocol) {
			st.reply(protocol.Reply{}, err)
		}
		return
	}
	switch req.Op {
	case protocol.OpCreate:
		a.create(ctx, st, req.Create)
	case protocol.OpAdopt:
		a.adopt(ctx, st, req.Adopt)
	case protocol.OpExec:
		a.exec(ctx, st, req)
	case protocol.OpVolume:
		a.volume(st, req.Volume, req.File)
	case protocol.OpReadFiles, protocol.OpWriteFiles, protocol.OpStatPath, protocol.OpChanges:
		a.files(ctx, st, req)
	case protocol.OpPrepare:
		st.reply(protocol.Reply{}, a.prepare(ctx, req.Create))
		<-st.Done() // what the host knows then: that we have got all it sent
	case protocol.OpPowerOff:
		st.reply(protocol.Reply{}, nil)
		select {
		case <-st.Done(): // the host has it
		case <-time.After(time.Second):
		}
		a.Guest.PowerOff()
	default:
		reply, err := a.answer(ctx, req)
		st.reply(reply, err)
	}
}

// reply answers the request. An error of the stream shows at its next use.
func (st *stream) reply(r protocol.Reply, err error) {
	r.Error = protocol.NewError(err)
	st.w.JSON(protocol.TypeReply, r)
}

// answer does what needs no more than a Reply.
func (a *Agent) answer(ctx context.Context, req *protocol.Request) (r protocol.Reply, err error) {
	switch req.Op {
	case protocol.OpStatus:
		r.Status, err = a.status()
		return r, err
	case protocol.OpClock:
		return a.clock(req)
	case protocol.OpSeed:
		if n := len(req.Seed); n < protocol.MinSeed || n > protocol.MaxSeed {
			return r, fmt.Errorf("%w: a seed of %d bytes", protocol.ErrProtocol, n)
		}
		return r, a.Guest.Reseed(req.Seed)
	case protocol.OpKeepData:
		return r, a.keepData(req.Keep)
	case protocol.OpHold:
		return r, a.hold(req.Volume, req.File)
	}
	id, err := workload.ParseID(string(req.ID))
	if err != nil {
		return r, fmt.Errorf("%w: %w", protocol.ErrProtocol, err)
	}
	switch req.Op {
	case protocol.OpDelete:
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		return r, a.remove(ctx, id)
	case protocol.OpRemoveData:
		if a.find(id) != nil {
			return r, workload.ErrRunning
		}
		return r, a.removeData(id)
	}
	g, err := a.made(ctx, id)
	if err != nil {
		return r, err
	}
	switch req.Op {
	case protocol.OpStart:
		return r, g.start(ctx)
	case protocol.OpSignal:
		return r, g.signal(ctx, req.Process, req.Signal, req.Group)
	case protocol.OpPause:
		return r, g.pause(ctx, true)
	case protocol.OpResume:
		return r, g.pause(ctx, false)
	case protocol.OpProcesses:
		r.Processes, err = g.processes(ctx)
		return r, err
	case protocol.OpDescribe:
		r.Described, err = g.describe(ctx)
		return r, err
	case protocol.OpMeasure:
		r.Usage, err = g.measure(ctx)
		return r, err
	case protocol.OpUpdate:
		return r, g.update(ctx, req.Resources)
	case protocol.OpRewire:
		return r, g.rewire(ctx, req.Rewire)
	}
	return r, fmt.Errorf("%w: unknown request %q", protocol.ErrProtocol, req.Op)
}
