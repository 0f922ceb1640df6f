package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var _ boundary.Group = (*process)(nil)

// process is one process in a guest, with the goroutines that carry its
// streams: one reads messages and writes to out, one reads in.
type process struct {
	conn   io.ReadWriteCloser
	w      *protocol.Writer
	signal func(context.Context, syscall.Signal) error
	// signalGroup is set for executed ones.
	signalGroup func(context.Context, syscall.Signal) error
	notice      func(string)
	ended       func() // may be nil

	in       *os.File
	out      [2]*os.File
	joined   bool      // standard error goes where standard output goes
	terminal *terminal // nil without one

	window *window

	done chan struct{} // closed when exit and err are final
	exit workload.Exit
	err  error

	mu      sync.Mutex
	deleted bool
}

func newProcess(w workload.Process, stdio boundary.Stdio, notice func(string)) (*process, error) {
	p := &process{notice: notice, window: newWindow(), done: make(chan struct{})}
	if w.Terminal {
		p.terminal = newTerminal(p)
		return p, nil
	}
	for _, f := range []struct {
		from *os.File
		to   **os.File
	}{{stdio.In, &p.in}, {stdio.Out, &p.out[0]}, {stdio.Err, &p.out[1]}} {
		if f.from == nil {
			continue
		}
		var err error
		if *f.to, err = duplicate(f.from); err != nil {
			p.closeFiles()
			return nil, err
		}
	}
	if same(p.out[0], p.out[1]) {
		p.out[1].Close()
		p.out[1], p.joined = nil, true
	}
	return p, nil
}

// same reports whether two files are one pipe, terminal or file.
func same(a, b *os.File) bool {
	if a == nil || b == nil {
		return false
	}
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}

// duplicate returns a descriptor of our own for f that the runtime polls, so
// that Close ends a Read or Write of it.
func duplicate(f *os.File) (*os.File, error) {
	var fd uintptr
	var errno syscall.Errno
	raw, err := f.SyscallConn() // not Fd: that ends the polling of the caller's
	if err != nil {
		return nil, err
	}
	if err := raw.Control(func(from uintptr) {
		fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, from, syscall.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return nil, err
	}
	if errno != 0 {
		return nil, os.NewSyscallError("fcntl", errno)
	}
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		syscall.Close(int(fd))
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(fd, f.Name()), nil
}

func (p *process) closeFiles() {
	for _, f := range []*os.File{p.in, p.out[0], p.out[1]} {
		if f != nil {
			f.Close()
		}
	}
}

// StreamsOf says which standard streams a process without a terminal gets.
func StreamsOf(io boundary.Stdio) protocol.Streams {
	s := protocol.Streams{In: io.In != nil, Out: io.Out != nil, Err: io.Err != nil}
	if same(io.Out, io.Err) {
		s.Err, s.Joined = false, true
	}
	return s
}

func (p *process) streams() protocol.Streams {
	return protocol.Streams{In: p.in != nil, Out: p.out[0] != nil, Err: p.out[1] != nil, Joined: p.joined}
}

// begin asks for the process and lets its streams flow.
func (p *process) begin(ctx context.Context, c *Client, req protocol.Request) (*protocol.Reply, error) {
	conn, err := c.open(ctx)
	if err != nil {
		p.closeFiles()
		return nil, err
	}
	reply, err := ask(ctx, conn, req)
	if err != nil {
		conn.Close()
		p.closeFiles()
		return nil, err
	}
	p.conn, p.w = conn, protocol.NewWriter(conn)
	var input sync.WaitGroup
	if p.in != nil {
		input.Go(p.sendInput)
	}
	go func() {
		exit, err := p.receive()
		p.window.close()
		p.closeFiles()
		input.Wait()
		if p.terminal != nil {
			p.terminal.out.end()
		}
		p.finish(exit, err)
	}()
	return reply, nil
}

func (p *process) finish(exit workload.Exit, err error) {
	if err != nil {
		p.mu.Lock()
		if p.deleted {
			err = fmt.Errorf("%w: it was deleted", workload.ErrNotRunning)
		} else {
			err = lost(err)
		}
		p.mu.Unlock()
		p.conn.Close()
	}
	p.exit, p.err = exit, err
	close(p.done)
	if p.ended != nil {
		p.ended()
		p.conn.Close() // while that of the first process is the workload's life
	}
}

// sendInput passes what is read from in on.
func (p *process) sendInput() {
	buf := make([]byte, protocol.MessageHeader+protocol.MaxData)
	for {
		n, err := p.in.Read(buf[protocol.MessageHeader:])
		if n > 0 && p.send(buf[:protocol.MessageHeader+n]) != nil {
			return
		}
		if err != nil {
			p.w.CloseStdin()
			return
		}
	}
}

// send sends b[protocol.MessageHeader:], overwriting the parts of b that have
// been sent. It waits until the process has read enough of what came before.
func (p *process) send(b []byte) error {
	const h = protocol.MessageHeader
	for len(b) > h {
		n, err := p.window.take(len(b) - h)
		if err != nil {
			return err
		}
		if err := p.w.Bytes(protocol.TypeStdin, b[:h+n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// receive takes messages until Exit.
func (p *process) receive() (workload.Exit, error) {
	// A buffer that holds headers and short messages; longer ones pass it by.
	r := protocol.NewReader(bufio.NewReaderSize(p.conn, 4<<10))
	for {
		t, payload, err := r.Next()
		if err != nil {
			return workload.Exit{}, err
		}
		switch t {
		case protocol.TypeStdout:
			p.output(0, payload)
		case protocol.TypeStderr:
			p.output(1, payload)
		case protocol.TypeNotice:
			if p.notice != nil {
				p.notice(protocol.ParseNotice(payload))
			}
		case protocol.TypeWindow:
			n, err := protocol.ParseNumber(payload)
			if err == nil {
				err = p.window.give(n)
			}
			if err != nil {
				return workload.Exit{}, err
			}
		case protocol.TypeCloseStdin:
			p.window.close()
			if p.in != nil {
				p.in.Close() // whoever writes into it gets EPIPE
			}
		case protocol.TypeExit:
			exit, err := protocol.ParseExit(payload)
			exit.At = time.Now().UTC() // the guest's clock is its own affair
			return exit, err
		default:
			return workload.Exit{}, fmt.Errorf("%w: message of type %d from the agent", protocol.ErrProtocol, t)
		}
	}
}

// output writes b where the stream leads. A stream that nobody reads is closed
// for the process too.
func (p *process) output(i int, b []byte) {
	if p.terminal != nil {
		p.terminal.out.write(b)
		return
	}
	f := p.out[i]
	if f == nil {
		return
	}
	if _, err := f.Write(b); err != nil {
		f.Close()
		if !errors.Is(err, os.ErrClosed) {
			p.w.CloseOutput(i + 1)
		}
	}
}

// end gives the process a time to tell how it ended, first with its output,
// then without, and closes its stream.
func (p *process) end(patience, lastWords time.Duration) {
	p.mu.Lock()
	p.deleted = true
	p.mu.Unlock()
	if !p.endsWithin(patience) {
		p.window.close()
		p.closeFiles()
		if p.terminal != nil {
			p.terminal.Close()
		}
		p.endsWithin(lastWords)
	}
	p.conn.Close()
	if p.terminal != nil {
		p.terminal.Close()
	}
	<-p.done // nothing holds it up: the stream and the files are closed
}

func (p *process) endsWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// Wait waits for the end, and until all output has been passed on.
func (p *process) Wait(ctx context.Context) (workload.Exit, error) {
	select {
	case <-p.done:
		return p.exit, p.err
	case <-ctx.Done():
		return workload.Exit{}, ctx.Err()
	}
}

// SignalGroup signals an executed process and what it has started.
func (p *process) SignalGroup(ctx context.Context, sig syscall.Signal) error {
	select {
	case <-p.done:
		return workload.ErrNotRunning
	default:
	}
	if p.signalGroup == nil {
		return fmt.Errorf("%w: signals to the first process's group", workload.ErrUnsupported)
	}
	return p.signalGroup(ctx, sig)
}

// Signal sends a signal.
func (p *process) Signal(ctx context.Context, sig syscall.Signal) error {
	select {
	case <-p.done:
		return workload.ErrNotRunning
	default:
		return p.signal(ctx, sig)
	}
}

// Terminal returns nil or the terminal.
func (p *process) Terminal() boundary.Terminal {
	if p.terminal == nil {
		return nil
	}
	return p.terminal
}

// PID is 0: no process of the host's.
func (p *process) PID() int { return 0 }
