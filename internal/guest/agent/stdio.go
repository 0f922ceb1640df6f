package agent

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
)

// stdio is our side of one process's standard streams: pipes or a terminal.
type stdio struct {
	theirs   boundary.Stdio // until begun
	in       io.WriteCloser // nil if the process has none
	out      [2]io.ReadCloser
	terminal boundary.Terminal
	pumps    sync.WaitGroup
}

func newStdio(terminal bool, s protocol.Streams) (*stdio, error) {
	io := &stdio{}
	if terminal {
		return io, nil
	}
	var err error
	if s.In {
		var w *os.File
		if io.theirs.In, w, err = pipe(false); err != nil {
			return nil, err
		}
		io.in = w
	}
	for i, theirs := range []**os.File{&io.theirs.Out, &io.theirs.Err} {
		if i == 0 && !s.Out || i == 1 && !s.Err {
			continue
		}
		var r *os.File
		if r, *theirs, err = pipe(true); err != nil {
			io.close()
			return nil, err
		}
		io.out[i] = r
	}
	if s.Joined && !s.Err {
		io.theirs.Err = io.theirs.Out
	}
	return io, nil
}

// pipe makes a pipe whose one end, ours, is polled by the runtime. The other
// stays in blocking mode, as programs expect.
func pipe(weRead bool) (r, w *os.File, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	ours := fds[1]
	if weRead {
		ours = fds[0]
	}
	if err := syscall.SetNonblock(ours, true); err != nil {
		syscall.Close(fds[0])
		syscall.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// begun closes the process's ends, which it has by now.
func (s *stdio) begun(t boundary.Terminal) {
	s.closeTheirs()
	if t != nil {
		s.terminal, s.in, s.out[0] = t, t, t
	}
}

func (s *stdio) closeTheirs() {
	for _, f := range []*os.File{s.theirs.In, s.theirs.Out, s.theirs.Err} {
		if f != nil {
			f.Close()
		}
	}
	s.theirs = boundary.Stdio{}
}

// close closes all ends, which may have been closed before.
func (s *stdio) close() {
	s.closeTheirs()
	if s.in != nil {
		s.in.Close()
	}
	for _, r := range s.out {
		if r != nil {
			r.Close()
		}
	}
}

// pump sends what the process writes, as fast as the host reads it.
func (s *stdio) pump(w *protocol.Writer) {
	for i, r := range s.out {
		if r != nil {
			s.pumps.Go(func() { forward(r, w, []protocol.Type{protocol.TypeStdout, protocol.TypeStderr}[i]) })
		}
	}
}

func forward(r io.ReadCloser, w *protocol.Writer, t protocol.Type) {
	buf := make([]byte, protocol.MessageHeader+protocol.MaxData)
	for {
		n, err := r.Read(buf[protocol.MessageHeader:])
		if n > 0 {
			if w.Bytes(t, buf[:protocol.MessageHeader+n]) != nil {
				r.Close() // nobody hears the process any more, and it should know
				return
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			rest(r, w, t, buf)
			return
		}
		if err != nil {
			return // the end; EIO for a terminal that nobody has open
		}
	}
}

// maxRest is the most that a pipe may hold: pipe-max-size in proc_sys_fs(5), as
// a process without privilege can set it.
const maxRest = 1 << 20

// rest sends what is there and does not wait for more: the process has ended,
// but another may have its streams open, and write for ever.
func rest(r io.Reader, w *protocol.Writer, t protocol.Type, buf []byte) {
	c, ok := r.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	// Past its deadline a descriptor refuses raw reads too.
	r.(deadliner).SetReadDeadline(time.Time{})
	for sent := 0; sent < maxRest; {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = syscall.Read(int(fd), buf[protocol.MessageHeader:])
			return true
		})
		if err != nil || n <= 0 || w.Bytes(t, buf[:protocol.MessageHeader+n]) != nil {
			return
		}
		sent += n
	}
}

type deadliner interface{ SetReadDeadline(time.Time) error }

// drain returns when all that the process wrote, which has ended, is on its way
// to the host.
func (s *stdio) drain() {
	slow := false
	for _, r := range s.out {
		if r == nil {
			continue
		}
		if d, ok := r.(deadliner); !ok || d.SetReadDeadline(time.Unix(1, 0)) != nil {
			slow = true
		}
	}
	if slow && s.terminal != nil {
		// A terminal that cannot be asked what it holds: closing it is all that
		// ends the reading, so the reading gets a moment first.
		t := time.AfterFunc(200*time.Millisecond, func() { s.terminal.Close() })
		defer t.Stop()
	}
	s.pumps.Wait()
	s.close()
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
