package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ErrDetached is what Session.Wait returns after the detach keys were typed.
var ErrDetached = errors.New("detached")

var errClosed = errors.New("session is closed")

// Streams are the caller's ends of a process's standard streams.
type Streams struct {
	// In is read until its end, which closes the process's standard input, but
	// for a terminal: In is one then, too, and ends because it was hung up, which
	// is nothing that its person typed. A workload that was started without an In
	// keeps its input open as well, whoever attaches to it. Nil leaves that input
	// alone (open, if the workload keeps one). A Read of In may still be blocked
	// when the session is over.
	In io.Reader
	// Out and Err receive the output; nil drops it. A process with a terminal
	// writes to Out only.
	Out, Err io.Writer
	// DetachKeys is the byte sequence in In that ends the session and leaves
	// the process running; empty for none. See ParseDetachKeys.
	DetachKeys []byte
	// Rows and Cols are the size of the caller's terminal, 0 if it has none.
	Rows, Cols uint16
}

// Session is a caller's connection to one process: the first of a workload, or
// an executed one. It ends when the process does, when the caller detaches or
// closes it, and when the supervisor is gone; none but the first ends the
// process.
type Session struct {
	// Record is the workload as it was when the session began.
	Record *Record

	e      *Engine
	c      *conn
	stdin  bool // the process has an input
	ends   bool // which the end of In ends
	io     *Streams
	credit credit
	// first begins the phase of the first output, nil after that or without a trace.
	first func() *trace.Open

	once sync.Once
	done chan struct{}
	exit workload.Exit
	err  error
}

func newSession(ctx context.Context, e *Engine, c *conn, r *Record, reply *wire.Reply, io *Streams) *Session {
	s := &Session{Record: r, e: e, c: c, stdin: reply.Stdin, ends: reply.Stdin && !reply.Terminal, io: io, done: make(chan struct{})}
	s.credit.init(wire.StdinWindow)
	if trace.From(ctx) != nil {
		s.first = func() *trace.Open { return trace.Step(ctx, "first output written") }
	}
	if io == nil {
		s.end(workload.Exit{}, errClosed)
		return s
	}
	go s.output()
	if io.In != nil && (s.stdin || len(io.DetachKeys) > 0) {
		go s.input()
	}
	return s
}

// end ends the session; the first call counts.
func (s *Session) end(exit workload.Exit, err error) {
	s.once.Do(func() {
		s.exit, s.err = exit, err
		s.credit.close()
		s.c.f.Close()
		close(s.done)
	})
}

// output writes what arrives to the streams.
func (s *Session) output() {
	exit, err := s.receive()
	if errors.Is(err, errGone) {
		err = workload.ErrSupervisorLost
	}
	s.end(exit, err)
}

func (s *Session) receive() (exit workload.Exit, err error) {
	for {
		t, payload, err := s.c.r.Next()
		if err != nil {
			return exit, gone(err)
		}
		switch t {
		case wire.TypeStdout, wire.TypeStderr:
			err = s.show(t, payload)
		case wire.TypeTrace:
			var phases []trace.Phase
			if err = wire.Decode(payload, &phases); err == nil && s.c.phases != nil {
				s.c.phases(phases)
			}
		case wire.TypeWindow:
			var n uint32
			if n, err = wire.Uint32(payload); err == nil {
				s.credit.add(int(n))
			}
		case wire.TypeExit:
			err = wire.Decode(payload, &exit)
			return exit, err
		default:
			err = fmt.Errorf("%w: unexpected frame of type %d", wire.ErrProtocol, t)
		}
		if err != nil {
			return exit, err
		}
	}
}

// show writes output to its stream. The first is a phase of a trace.
func (s *Session) show(t wire.Type, b []byte) error {
	to := s.io.Out
	if t == wire.TypeStderr {
		to = s.io.Err
	}
	if s.first != nil {
		defer s.first().End()
		s.first = nil
	}
	return write(to, b)
}

// ErrOutput tells that the caller's Out or Err did not take what the workload
// wrote.
var ErrOutput = errors.New("write the workload's output")

func write(w io.Writer, b []byte) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("%w: %w", ErrOutput, err)
	}
	return nil
}

// input sends what is read from In.
func (s *Session) input() {
	keys := detacher{keys: s.io.DetachKeys}
	buf := make([]byte, wire.MaxData/2) // the detacher may add what it held back
	for {
		n, err := s.io.In.Read(buf)
		b, detach := keys.filter(buf[:n])
		if s.sendInput(b) != nil {
			return
		}
		if detach {
			s.end(workload.Exit{}, ErrDetached)
			return
		}
		if err != nil {
			if s.sendInput(keys.held()) == nil && s.ends {
				s.c.send(func(q []byte) []byte { return wire.AppendFrame(q, wire.TypeCloseStdin, nil) })
			}
			return
		}
	}
}

// sendInput sends b, as fast as the process reads.
func (s *Session) sendInput(b []byte) error {
	if !s.stdin {
		return nil
	}
	for len(b) > 0 {
		n, err := s.credit.take(min(len(b), wire.MaxData))
		if err == nil {
			err = s.c.send(func(q []byte) []byte { return wire.AppendFrame(q, wire.TypeStdin, b[:n]) })
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Wait returns when the process has ended and all its output has been written
// to the streams. It returns ErrDetached when the caller detached, and an error
// wrapping workload.ErrSupervisorLost when the supervisor is gone.
func (s *Session) Wait(ctx context.Context) (workload.Exit, error) {
	select {
	case <-s.done:
	case <-ctx.Done():
		return workload.Exit{}, ctx.Err()
	}
	if errors.Is(s.err, workload.ErrSupervisorLost) {
		return s.lost(ctx)
	}
	return s.exit, s.err
}

// lost cleans up after the supervisor at once, and finds the exit if it was
// recorded.
func (s *Session) lost(ctx context.Context) (workload.Exit, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	id := s.Record.Spec.ID
	said := s.e.lastWords(id)
	exit, err := s.e.Wait(ctx, string(id))
	switch {
	case errors.Is(err, workload.ErrNotFound):
		err = s.e.forget(id) // it died while it removed the workload
	case ended(err):
		err = nil
	}
	s.e.warn(err)
	return exit, fmt.Errorf("workload %s: %w%s", s.Record.Spec.Name, s.err, said)
}

// Resize tells the process's terminal its new size; without a terminal it does
// nothing.
func (s *Session) Resize(rows, cols uint16) error {
	return s.c.send(func(q []byte) []byte { return wire.AppendResize(q, rows, cols) })
}

// Signal sends sig to the process of this session.
func (s *Session) Signal(sig syscall.Signal) error {
	return s.c.send(func(q []byte) []byte { return wire.AppendUint32(q, wire.TypeSignal, uint32(sig)) })
}

// Close ends the session and leaves the process running. It may be called
// again.
func (s *Session) Close() error {
	s.end(workload.Exit{}, errClosed)
	return nil
}

// credit counts how much input may be sent.
type credit struct {
	mu     sync.Mutex
	change sync.Cond
	n      int
	closed bool
}

func (c *credit) init(n int) { c.n, c.change.L = n, &c.mu }

// take waits for credit and takes up to n of it.
func (c *credit) take(n int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.n == 0 && !c.closed {
		c.change.Wait()
	}
	if c.closed {
		return 0, errClosed
	}
	n = min(n, c.n)
	c.n -= n
	return n, nil
}

func (c *credit) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	c.change.Broadcast()
}

func (c *credit) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.change.Broadcast()
}
