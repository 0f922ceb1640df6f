package agent

import (
	"io"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/stdio"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
)

// newStdio makes the pipes for a process that is about to be started.
func newStdio(terminal bool, s protocol.Streams) (*stdio.Ends, error) {
	return stdio.New(stdio.Wanted{Terminal: terminal, In: s.In, Out: s.Out, Err: s.Err, Joined: s.Joined})
}

// pump sends what the process writes, as fast as the host reads it. When nobody
// hears the process any more, it knows.
func pump(io *stdio.Ends, w *protocol.Writer) {
	io.Pump(protocol.MessageHeader, protocol.MaxData, func(stream int, b []byte) error {
		return w.Bytes([]protocol.Type{stdio.Out: protocol.TypeStdout, stdio.Err: protocol.TypeStderr}[stream], b)
	})
}

// inbox holds what the host sent and the process has not read, at most
// protocol.StdinWindow bytes, so that the host's next message is always read.
type inbox struct {
	w  *protocol.Writer
	in io.WriteCloser // nil drops everything

	mu     sync.Mutex
	more   sync.Cond
	buf    []byte
	under  int  // bytes that the host has not been given back
	ended  bool // nothing comes after buf
	broken bool // nobody reads
}

func newInbox(w *protocol.Writer, in io.WriteCloser) *inbox {
	b := &inbox{w: w, in: in}
	b.more.L = &b.mu
	return b
}

// add stores p; the error wraps protocol.ErrProtocol if the host may not send as much.
func (b *inbox) add(p []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.under+len(p) > protocol.StdinWindow {
		return errTooMuch
	}
	b.under += len(p)
	if !b.ended {
		b.buf = append(b.buf, p...)
		b.more.Signal()
	}
	return nil
}

// end lets run return when all has been written.
func (b *inbox) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.more.Signal()
}

// run writes to the process until end was called, and closes a pipe then. A
// terminal's end of input is a character, which the host sends.
func (b *inbox) run(terminal bool) {
	var spare []byte
	for {
		b.mu.Lock()
		for len(b.buf) == 0 && !b.ended {
			b.more.Wait()
		}
		p := b.buf
		b.buf = spare[:0]
		b.mu.Unlock()
		if len(p) == 0 {
			break
		}
		b.write(p)
		spare = p
	}
	if b.in != nil && !terminal {
		b.in.Close()
	}
}

func (b *inbox) write(p []byte) {
	if b.in == nil {
		return // the host sends no more than a window of it
	}
	if !b.broken {
		if _, err := b.in.Write(p); err != nil {
			b.broken = true
			b.w.CloseStdin()
		}
	}
	b.mu.Lock()
	b.under -= len(p)
	b.mu.Unlock()
	b.w.Window(uint32(len(p)))
}

// maxNotices is how many lines wait for a slow host; what comes then is dropped,
// as whoever has a notice must not wait: it may be what answers a system call.
const maxNotices = 64

// notices passes lines on to the host.
type notices struct {
	lines       chan string
	stop, ended chan struct{}
}

func newNotices() *notices {
	return &notices{lines: make(chan string, maxNotices), stop: make(chan struct{}), ended: make(chan struct{})}
}

// add takes a line. It may be called at any time.
func (n *notices) add(line string) {
	select {
	case n.lines <- line:
	default:
	}
}

// run sends lines until finish is called.
func (n *notices) run(w *protocol.Writer) {
	defer close(n.ended)
	for {
		select {
		case line := <-n.lines:
			w.Notice(line)
			continue
		case <-n.stop:
		}
		for {
			select {
			case line := <-n.lines:
				w.Notice(line)
			default:
				return
			}
		}
	}
}

// finish returns when the lines that were added have been sent.
func (n *notices) finish() {
	close(n.stop)
	<-n.ended
}
