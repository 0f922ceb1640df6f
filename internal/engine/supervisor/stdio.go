package supervisor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/logfile"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// stdio is our side of one process's standard streams: three pipes or a
// terminal, what is read from them going to the log and to all clients.
type stdio struct {
	theirs   boundary.Stdio // until begun
	out      [2]io.Reader   // by logfile.Stream; a terminal is the first
	terminal boundary.Terminal

	first *trace.Open // ends with the first output; nil without a trace

	input io.WriteCloser // nil if the process has none; fixed once it has begun
	inMu  sync.Mutex     // orders writes of several clients

	mu      sync.Mutex
	clients []*client
	ended   *workload.Exit
	pumps   sync.WaitGroup
}

// newStdio makes the pipes for a process that is about to be started.
func newStdio(terminal, input bool) (*stdio, error) {
	s := &stdio{}
	if terminal {
		return s, nil
	}
	var err error
	if input {
		var w *os.File
		if s.theirs.In, w, err = pipe(false); err != nil {
			return nil, err
		}
		s.input = w
	}
	for i, theirs := range []**os.File{&s.theirs.Out, &s.theirs.Err} {
		var r *os.File
		if r, *theirs, err = pipe(true); err != nil {
			s.close()
			return nil, err
		}
		s.out[i] = r
	}
	return s, nil
}

// pipe makes a pipe whose one end, ours, is polled by the runtime. The other
// must stay in blocking mode: that is a property which it shares with the
// workload, and few programs expect EAGAIN. os.Pipe would change both.
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
	for _, f := range []*os.File{s.theirs.In, s.theirs.Out, s.theirs.Err} {
		if f != nil {
			f.Close()
		}
	}
	s.theirs = boundary.Stdio{}
	if t != nil {
		s.terminal, s.input, s.out[0] = t, t, t
	}
}

func (s *stdio) hasInput() bool { return s.input != nil }

// add gives c the output from now on, or the exit if that was the last.
func (s *stdio) add(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		c.exit(*s.ended)
		return
	}
	s.clients = append(s.clients, c)
}

func (s *stdio) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = slices.DeleteFunc(s.clients, func(x *client) bool { return x == c })
}

// pump begins to read the output; log may be nil.
func (s *stdio) pump(log *logfile.Writer) {
	for i, r := range s.out {
		if r == nil {
			continue
		}
		s.pumps.Go(func() { s.copy(r, logfile.Stream(i), log) })
	}
}

func (s *stdio) copy(r io.Reader, stream logfile.Stream, log *logfile.Writer) {
	buf := make([]byte, wire.MaxData)
	t := wire.TypeStdout
	if stream == logfile.Stderr {
		t = wire.TypeStderr
	}
	forward := func(b []byte) {
		s.first.End()
		s.forward(t, stream, log, b)
	}
	for {
		n, err := r.Read(buf)
		if n > 0 {
			forward(buf[:n])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			rest(r, buf, forward)
			return
		}
		if err != nil {
			return // the end; EIO for a terminal that nobody has open
		}
	}
}

// forward gives b to the log and to all clients.
func (s *stdio) forward(t wire.Type, stream logfile.Stream, log *logfile.Writer, b []byte) {
	if log != nil {
		log.Write(stream, time.Now(), b)
	}
	s.mu.Lock()
	clients := slices.Clone(s.clients)
	s.mu.Unlock()
	for _, c := range clients {
		if c.send(t, b) != nil {
			s.remove(c)
		}
	}
}

// notice puts a line of ours among the process's standard error.
func (s *stdio) notice(log *logfile.Writer, line string) {
	end := "\n"
	if s.terminal != nil {
		end = "\r\n"
	}
	s.forward(wire.TypeStderr, logfile.Stderr, log, []byte("bulkhead: "+line+end))
}

// maxRest is the most that a pipe may hold: pipe-max-size in proc_sys_fs(5), as
// a process without privilege can set it.
const maxRest = 1 << 20

// rest reads what is there. It neither waits for more nor goes on for as long as
// somebody writes: who still has the stream may fill it again at once.
func rest(r io.Reader, buf []byte, forward func([]byte)) {
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
	for left := maxRest; left > 0; {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = syscall.Read(int(fd), buf)
			return true
		})
		if err != nil || n <= 0 {
			return
		}
		forward(buf[:n])
		left -= n
	}
}

type deadliner interface{ SetReadDeadline(time.Time) error }

// drain returns when all output that the process wrote has been queued for the
// clients and logged. The process has ended; others may still hold its streams
// open, and are not waited for.
func (s *stdio) drain() {
	s.mu.Lock()
	for _, c := range s.clients {
		c.lift()
	}
	s.mu.Unlock()
	var slow bool
	for _, r := range s.out {
		if r == nil {
			continue
		}
		d, ok := r.(deadliner)
		if !ok || d.SetReadDeadline(time.Unix(1, 0)) != nil {
			slow = true
		}
	}
	if slow {
		// A terminal that cannot be asked what it holds: closing it is all that
		// ends the reading, so the reading gets a moment first.
		t := time.AfterFunc(200*time.Millisecond, func() { s.terminal.Close() })
		defer t.Stop()
	}
	s.pumps.Wait()
	s.close()
}

// close closes all of our ends, which may have been closed before. A write that
// waits for the process returns.
func (s *stdio) close() {
	for _, c := range []any{s.out[0], s.out[1], s.input, s.theirs.In, s.theirs.Out, s.theirs.Err} {
		if c, ok := c.(io.Closer); ok && c != (*os.File)(nil) {
			c.Close()
		}
	}
}

// end tells all clients, present and to come, how the process ended.
func (s *stdio) end(e workload.Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = &e
	for _, c := range s.clients {
		c.exit(e)
	}
}

// write gives b to the process. It waits until the process has read it.
func (s *stdio) write(b []byte) error {
	s.inMu.Lock()
	defer s.inMu.Unlock()
	if s.input == nil {
		return os.ErrClosed
	}
	_, err := s.input.Write(b)
	return err
}

// eot is the character that a terminal takes for the end of its input when a
// line is empty: VEOF in termios(3).
const eot = 4

// closeInput ends the process's standard input.
func (s *stdio) closeInput() error {
	if s.terminal != nil {
		return s.write([]byte{eot})
	}
	s.inMu.Lock()
	defer s.inMu.Unlock()
	if s.input == nil {
		return nil
	}
	return s.input.Close()
}

func (s *stdio) resize(rows, cols uint16) error {
	if s.terminal == nil || rows == 0 || cols == 0 {
		return nil
	}
	if err := s.terminal.Resize(rows, cols); err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}
