package client

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Instance is one workload in a guest. The errors of its methods wrap
// ErrGuestLost when the agent is gone.
type Instance struct {
	c     *Client
	id    workload.ID
	first *process // nil for one that Open returned

	mu      sync.Mutex
	running map[*process]bool // executed, and not yet ended
}

var (
	_ boundary.Instance = (*Instance)(nil)
	_ boundary.Pauser   = (*Instance)(nil)
	_ boundary.Lister   = (*Instance)(nil)
)

// Create makes a workload. Its first process's streams are those of stdio, a nil file
// is /dev/null; req.Streams is filled in. notice takes lines for the log and may be nil.
//
// The files are used by way of duplicates, and put into non-blocking mode if
// they are pipes, sockets or terminals: that is a property which the
// duplicates share. The workload lives no longer than this process keeps the
// stream: when this process dies, the agent removes it.
func (c *Client) Create(ctx context.Context, req protocol.Create, stdio boundary.Stdio, notice func(line string)) (*Instance, error) {
	return c.make(ctx, req.Spec.ID, req.Spec.Process, stdio, notice, func(p *process, traced bool) (protocol.Request, error) {
		req.Streams, req.Trace = p.streams(), traced
		return protocol.Request{Op: protocol.OpCreate, Create: &req}, nil
	})
}

// Prepare makes a workload for nobody, to be adopted in each clone of the guest.
func (c *Client) Prepare(ctx context.Context, req protocol.Create) error {
	_, err := c.call(ctx, protocol.Request{Op: protocol.OpPrepare, Create: &req})
	return err
}

// Adopt makes a workload of what Prepare made of like, in a guest that this one
// is a clone of. Otherwise it is as Create.
func (c *Client) Adopt(ctx context.Context, like protocol.Create, req protocol.Adopt, stdio boundary.Stdio, notice func(line string)) (*Instance, error) {
	return c.make(ctx, req.ID, like.Spec.Process, stdio, notice, func(p *process, traced bool) (protocol.Request, error) {
		if has := p.streams(); has != like.Streams {
			return protocol.Request{}, fmt.Errorf("standard streams %+v, it was made with %+v", has, like.Streams)
		}
		req.Trace = traced
		return protocol.Request{Op: protocol.OpAdopt, Adopt: &req}, nil
	})
}

// make asks for a workload.
func (c *Client) make(ctx context.Context, id workload.ID, w workload.Process, stdio boundary.Stdio, notice func(string),
	request func(p *process, traced bool) (protocol.Request, error)) (in *Instance, err error) {
	defer func() {
		if err != nil {
			in, err = nil, fmt.Errorf("create workload %s in the guest: %w", id.Short(), err)
		}
	}()
	in = &Instance{c: c, id: id, running: map[*process]bool{}}
	p, err := newProcess(w, stdio, notice)
	if err != nil {
		return nil, err
	}
	ctx, making := trace.Begin(ctx, "workload made in the guest")
	defer making.End()
	req, err := request(p, making != nil)
	if err != nil {
		p.closeFiles()
		return nil, err
	}
	began := trace.Now()
	reply, err := p.begin(ctx, c, req)
	if err != nil {
		return nil, err
	}
	if making != nil {
		trace.Merge(ctx, phases(reply.Phases, began, trace.Now()))
	}
	p.signal = in.signal(0)
	in.first = p
	return in, nil
}

// Open returns a workload that another process created, to clean up after it:
// Signal and Delete work on it.
func (c *Client) Open(id workload.ID) *Instance {
	return &Instance{c: c, id: id, running: map[*process]bool{}}
}

func (i *Instance) call(ctx context.Context, op protocol.Op) (*protocol.Reply, error) {
	return i.c.call(ctx, protocol.Request{Op: op, ID: i.id})
}

// Start lets the first process run.
func (i *Instance) Start(ctx context.Context) error {
	_, err := i.call(ctx, protocol.OpStart)
	return err
}

// Exec runs another process. Its streams are treated as Create treats them.
func (i *Instance) Exec(ctx context.Context, w workload.Process, stdio boundary.Stdio) (boundary.Process, error) {
	p, err := newProcess(w, stdio, nil)
	if err != nil {
		return nil, fmt.Errorf("exec in the guest: %w", err)
	}
	p.ended = func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.running, p)
	}
	reply, err := p.begin(ctx, i.c, protocol.Request{
		Op: protocol.OpExec, ID: i.id, Exec: &protocol.Exec{Process: w, Streams: p.streams()},
	})
	if err != nil {
		return nil, fmt.Errorf("exec in the guest: %w", err)
	}
	p.signal = i.signal(reply.Process)
	p.signalGroup = func(ctx context.Context, sig syscall.Signal) error {
		_, err := i.c.call(ctx, protocol.Request{Op: protocol.OpSignal, ID: i.id, Process: reply.Process, Signal: sig, Group: true})
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	select {
	case <-p.done:
	default:
		i.running[p] = true
	}
	return p, nil
}

// signal returns the function that signals process n.
func (i *Instance) signal(n uint64) func(context.Context, syscall.Signal) error {
	return func(ctx context.Context, sig syscall.Signal) error {
		_, err := i.c.call(ctx, protocol.Request{Op: protocol.OpSignal, ID: i.id, Process: n, Signal: sig})
		return err
	}
}

// Wait waits for the first process, and until all that it wrote has been
// written to its streams. Exit.At is this machine's time.
func (i *Instance) Wait(ctx context.Context) (workload.Exit, error) {
	if i.first == nil {
		return workload.Exit{}, fmt.Errorf("%w: another process created the workload", workload.ErrNotRunning)
	}
	return i.first.Wait(ctx)
}

// Signal signals the first process.
func (i *Instance) Signal(ctx context.Context, sig syscall.Signal) error {
	return i.signal(0)(ctx, sig)
}

// Terminal is the first process's.
func (i *Instance) Terminal() boundary.Terminal {
	if i.first == nil {
		return nil
	}
	return i.first.Terminal()
}

// PID is 0: no process of the host's.
func (i *Instance) PID() int { return 0 }

// Pause stops all processes of the workload, and Resume continues them.
func (i *Instance) Pause(ctx context.Context) error {
	_, err := i.call(ctx, protocol.OpPause)
	return err
}

// Resume continues what Pause stopped.
func (i *Instance) Resume(ctx context.Context) error {
	_, err := i.call(ctx, protocol.OpResume)
	return err
}

// Rewire changes the workload's network interfaces.
func (i *Instance) Rewire(ctx context.Context, w protocol.Rewire) error {
	_, err := i.c.call(ctx, protocol.Request{Op: protocol.OpRewire, ID: i.id, Rewire: &w})
	return err
}

// Processes lists the workload's processes by their IDs in the guest.
func (i *Instance) Processes(ctx context.Context) ([]int, error) {
	r, err := i.call(ctx, protocol.OpProcesses)
	if err != nil {
		return nil, err
	}
	return r.Processes, nil
}

// How long Delete waits for readers that are a little slow, and for the exit
// codes of the processes that it ended.
const (
	patience  = time.Second
	lastWords = 5 * time.Second
)

// Delete ends every process of the workload and removes all of it but its
// data. Output that has not been read by then may be lost.
func (i *Instance) Delete(ctx context.Context) error {
	if err := i.c.Delete(ctx, i.id); err != nil {
		return err
	}
	i.end(patience, lastWords)
	return nil
}

// Abandon gives up the streams at once. An agent that lives removes the
// workload; processes that are not known to have ended are lost.
func (i *Instance) Abandon() { i.end(0, 0) }

func (i *Instance) end(patience, lastWords time.Duration) {
	i.mu.Lock()
	all := []*process{}
	for p := range i.running {
		all = append(all, p)
	}
	i.mu.Unlock()
	if i.first != nil {
		all = append(all, i.first)
	}
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() { p.end(patience, lastWords) })
	}
	wg.Wait()
}
