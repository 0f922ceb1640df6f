package agent

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/stdio"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var errTooMuch = fmt.Errorf("%w: more standard input than the window allows", protocol.ErrProtocol)

// built is a workload that was made, with our side of its first process.
type built struct {
	e   *entry
	io  *stdio.Ends
	log *notices
	// volumes are those that it was made with, by name.
	volumes map[int]string
}

// end ends a workload that was made.
func (b *built) end() {
	b.io.Close()
	b.e.end()
}

// build makes a workload; late says that it is for nobody yet. After an error
// what was made is gone again.
func (a *Agent) build(ctx context.Context, c *protocol.Create, late bool) (*built, error) {
	if err := checkCreate(c); err != nil {
		return nil, err
	}
	e, err := a.take(c.Spec.ID)
	if err != nil {
		return nil, err
	}
	b := &built{e: e, io: &stdio.Ends{}, log: newNotices(), volumes: c.Volumes}
	whole := false
	defer func() {
		if !whole {
			b.end()
		}
	}()
	io, err := newStdio(c.Spec.Process.Terminal, c.Streams)
	if err != nil {
		close(e.made)
		return nil, err
	}
	b.io = io
	if err := e.make(ctx, c, late, io.Theirs(), b.log.add); err != nil {
		return nil, err
	}
	io.Begun(e.inst.Terminal())
	whole = true
	return b, nil
}

// create makes a workload and serves its first process.
func (a *Agent) create(ctx context.Context, st *stream, c *protocol.Create) {
	making, phases := traced(ctx, c != nil && c.Trace)
	b, err := a.build(making, c, false)
	if err != nil {
		st.reply(protocol.Reply{}, err)
		return
	}
	st.live(b, phases())
}

// live serves the first process of a workload. When the stream ends, so does the
// workload.
func (st *stream) live(b *built, phases protocol.Phases) {
	defer b.end()
	st.reply(protocol.Reply{Phases: phases}, nil)
	go b.log.run(st.w) // nothing precedes the Reply
	e, ended := b.e, make(chan struct{})
	go func() {
		defer close(ended)
		st.process(e, e.inst, b.io, b.log.finish)
		e.mu.Lock()
		e.status = workload.Exited
		e.mu.Unlock()
		<-e.gone
		st.Close()
	}()
	st.messages(b.io)
	e.end()
	select {
	case <-e.gone:
		<-ended
	default: // it cannot be killed, as the log says; a later delete may do better
	}
}

// exec runs another process. When the stream ends, the process is killed.
func (a *Agent) exec(ctx context.Context, st *stream, req *protocol.Request) {
	e, proc, io, err := a.execute(ctx, req)
	if err != nil {
		st.reply(protocol.Reply{}, err)
		return
	}
	defer io.Close()
	n := e.add(proc)
	defer e.forget(n)
	io.Begun(proc.Terminal())
	st.reply(protocol.Reply{Process: n}, nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		st.process(e, proc, io, func() {})
		st.Close()
	}()
	st.messages(io)
	select {
	case <-ended:
	default:
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := proc.Signal(ctx, syscall.SIGKILL); err != nil && !errors.Is(err, workload.ErrNotRunning) {
			a.Log(fmt.Sprintf("kill a process of workload %s: %v", e.id.Short(), err))
		}
		<-ended
	}
}

func (a *Agent) execute(ctx context.Context, req *protocol.Request) (*entry, boundary.Process, *stdio.Ends, error) {
	if req.Exec == nil {
		return nil, nil, nil, fmt.Errorf("%w: exec of nothing", protocol.ErrProtocol)
	}
	e, err := a.made(ctx, req.ID)
	if err != nil {
		return nil, nil, nil, err
	}
	e.mu.Lock()
	status := e.status
	e.mu.Unlock()
	if status != workload.Running {
		return nil, nil, nil, fmt.Errorf("%w: it is %s", workload.ErrNotRunning, status)
	}
	io, err := newStdio(req.Exec.Process.Terminal, req.Exec.Streams)
	if err != nil {
		return nil, nil, nil, err
	}
	proc, err := e.inst.Exec(ctx, req.Exec.Process, io.Theirs())
	if err != nil {
		io.Close()
		return nil, nil, nil, err
	}
	return e, proc, io, nil
}

// process sends what a process writes, and then how it ended. It calls last
// before that.
func (st *stream) process(e *entry, p boundary.Process, io *stdio.Ends, last func()) {
	pump(io, st.w)
	exit, err := e.wait(p)
	select {
	case <-e.gone:
		if err != nil {
			io.Close() // it never ran
			io.Wait()
			last()
			return
		}
	default:
	}
	if err != nil {
		exit = workload.Exit{Code: 255, Error: err.Error(), At: time.Now()}
	}
	io.Drain()
	last()
	st.w.Exit(exit)
}

// messages takes the host's messages to a process until the stream ends.
func (st *stream) messages(io *stdio.Ends) {
	in := newInbox(st.w, io.In())
	done := make(chan struct{})
	go func() {
		defer close(done)
		in.run(io.Terminal() != nil)
	}()
	for {
		t, payload, err := st.r.Next()
		if err == nil {
			err = st.message(t, payload, io, in)
		}
		if err != nil {
			break
		}
	}
	st.Close()
	in.end()
	if io.In() != nil {
		io.In().Close() // ends a write to a process that does not read
	}
	<-done
}

func (st *stream) message(t protocol.Type, payload []byte, io *stdio.Ends, in *inbox) error {
	switch t {
	case protocol.TypeStdin:
		return in.add(payload)
	case protocol.TypeCloseStdin:
		if io.Terminal() == nil {
			in.end()
		}
	case protocol.TypeResize:
		rows, cols, err := protocol.ParseSize(payload)
		if err != nil {
			return err
		}
		if io.Terminal() != nil && rows > 0 && cols > 0 {
			io.Terminal().Resize(rows, cols) // fails only when the process has ended
		}
	case protocol.TypeCloseOutput:
		fd, err := protocol.ParseDescriptor(payload)
		if err != nil {
			return err
		}
		io.CloseOutput(fd - 1)
	default:
		return fmt.Errorf("%w: message of type %d from the host", protocol.ErrProtocol, t)
	}
	return nil
}
