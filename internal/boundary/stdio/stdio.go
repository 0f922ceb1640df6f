// Package stdio holds our side of one process's standard streams, pipes or a
// terminal, wherever the process is started: by a supervisor, or by the agent in
// a guest. What is read from them goes where the caller says.
package stdio

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
)

// The two output streams, as Ends.Pump counts them. A terminal has the first only.
const (
	Out = iota
	Err
)

// MaxRest is the most that is read of what a process has left behind, in bytes,
// rounded up to what one read takes. It is what a pipe may hold: pipe-max-size in
// proc_sys_fs(5), as a process without privilege can set it.
const MaxRest = 1 << 20

// Ends are our ends of one process's standard streams.
type Ends struct {
	theirs   boundary.Stdio // until Begun
	in       io.WriteCloser // nil if the process has none
	out      [2]io.ReadCloser
	terminal boundary.Terminal
	pumps    sync.WaitGroup
}

// Wanted says what a process gets.
type Wanted struct {
	Terminal     bool // and no pipes; Begun hands it over
	In, Out, Err bool
	Joined       bool // without Err, standard error is the same pipe as standard output
}

// New makes the pipes for a process that is about to be started.
func New(want Wanted) (*Ends, error) {
	e := &Ends{}
	if want.Terminal {
		return e, nil
	}
	if want.In {
		r, w, err := pipe(false)
		if err != nil {
			return nil, err
		}
		e.theirs.In, e.in = r, w
	}
	for i, theirs := range []**os.File{&e.theirs.Out, &e.theirs.Err} {
		if i == Out && !want.Out || i == Err && !want.Err {
			continue
		}
		r, w, err := pipe(true)
		if err != nil {
			e.Close()
			return nil, err
		}
		e.out[i], *theirs = r, w
	}
	if want.Joined && !want.Err {
		e.theirs.Err = e.theirs.Out
	}
	return e, nil
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

// Theirs are the process's ends, for whoever starts it. They are ours to close.
func (e *Ends) Theirs() boundary.Stdio { return e.theirs }

// Begun closes the process's ends, which it has by now, and takes over its
// terminal, nil for none.
func (e *Ends) Begun(t boundary.Terminal) {
	e.closeTheirs()
	if t != nil {
		e.terminal, e.in, e.out[Out] = t, t, t
	}
}

// Terminal is the process's terminal; nil if it has none, or has not begun.
func (e *Ends) Terminal() boundary.Terminal { return e.terminal }

// In is the process's standard input, nil if it has none. It is fixed once the
// process has begun.
func (e *Ends) In() io.WriteCloser { return e.in }

// Pump begins to read what the process writes. It gives each piece to forward,
// with its stream, Out or Err, in a slice whose first head bytes are free for the
// caller's use and which holds at most piece bytes more. The slice is valid until
// forward returns. Streams are read at once, so forward is called from several
// goroutines. After an error of forward the stream is closed, and the process
// sees that.
func (e *Ends) Pump(head, piece int, forward func(stream int, b []byte) error) {
	for i, r := range e.out {
		if r == nil {
			continue
		}
		e.pumps.Go(func() {
			copyAll(r, make([]byte, head+piece), head, func(b []byte) error { return forward(i, b) })
		})
	}
}

func copyAll(r io.ReadCloser, buf []byte, head int, forward func([]byte) error) {
	for {
		n, err := r.Read(buf[head:])
		if n > 0 && forward(buf[:head+n]) != nil {
			r.Close()
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			rest(r, buf, head, forward)
			return
		}
		if err != nil {
			return // the end; EIO for a terminal that nobody has open
		}
	}
}

// rest reads what is there. It neither waits for more nor goes on for as long as
// somebody writes: who still has the stream may fill it again at once.
func rest(r io.Reader, buf []byte, head int, forward func([]byte) error) {
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
	for left := MaxRest; left > 0; {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = syscall.Read(int(fd), buf[head:])
			return true
		})
		if err != nil || n <= 0 || forward(buf[:head+n]) != nil {
			return
		}
		left -= n
	}
}

type deadliner interface{ SetReadDeadline(time.Time) error }

// Drain returns when all that the process wrote has been given to forward, and
// closes all ends. The process has ended; others may still hold its streams open,
// and are not waited for.
func (e *Ends) Drain() {
	slow := false
	for _, r := range e.out {
		if r == nil {
			continue
		}
		if d, ok := r.(deadliner); !ok || d.SetReadDeadline(time.Unix(1, 0)) != nil {
			slow = true
		}
	}
	if slow && e.terminal != nil {
		// A terminal that cannot be asked what it holds: closing it is all that
		// ends the reading, so the reading gets a moment first.
		t := time.AfterFunc(200*time.Millisecond, func() { e.terminal.Close() })
		defer t.Stop()
	}
	e.Wait()
	e.Close()
}

// Wait returns when nothing is read any more.
func (e *Ends) Wait() { e.pumps.Wait() }

// CloseOutput closes one stream of output, which nobody wants any more: the
// process sees that. A terminal stays open.
func (e *Ends) CloseOutput(stream int) {
	if r := e.out[stream]; r != nil && e.terminal == nil {
		r.Close()
	}
}

// Close closes all ends, which may have been closed before. A write that waits
// for the process returns.
func (e *Ends) Close() {
	e.closeTheirs()
	if e.in != nil {
		e.in.Close()
	}
	for _, r := range e.out {
		if r != nil {
			r.Close()
		}
	}
}

func (e *Ends) closeTheirs() {
	for _, f := range []*os.File{e.theirs.In, e.theirs.Out, e.theirs.Err} {
		if f != nil {
			f.Close()
		}
	}
	e.theirs = boundary.Stdio{}
}
