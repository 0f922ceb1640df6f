package main

import (
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/tty"
)

// session ties this command to the process that it runs: signals, and bytes
// and size of the terminal if the process has one. Without a terminal the
// process has this command's own streams, nothing is copied.
//
//	our stdin ──▶ terminal ──▶ our stdout
//	signals, SIGWINCH ──▶ process, size
type session struct {
	terminal *os.File
	restore  func() error
	signals  chan os.Signal
	done     chan struct{} // closed to end the goroutine that forwards signals
	once     sync.Once     // of closing done
	output   chan struct{} // closed when the terminal has nothing more to say
	moved    chan struct{} // filled after output was written
	writing  atomic.Bool   // output is being written
	copied   atomic.Int64  // bytes of output written
	wg       sync.WaitGroup
}

// forwarded are the signals that people and engines send. To ask for all of
// them costs a hundred system calls in every run.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
	syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPWR, syscall.SIGWINCH,
}

// attach begins a session. From here on signals are the process's.
func attach(c *command, terminal *os.File, send func(syscall.Signal) error) (*session, error) {
	s := &session{
		terminal: terminal, signals: make(chan os.Signal, 32),
		done: make(chan struct{}), output: make(chan struct{}), moved: make(chan struct{}, 1),
	}
	signal.Notify(s.signals, forwarded...)
	c.release()
	if terminal == nil {
		close(s.output)
	} else if err := s.connect(c.stdin, c.stdout); err != nil {
		signal.Stop(s.signals)
		s.undo()
		return nil, err
	}
	s.wg.Go(func() { s.forward(c, send) })
	return s, nil
}

// connect starts copying between the terminal and our streams.
func (s *session) connect(in, out *os.File) error {
	if tty.Is(in) {
		if size, err := tty.GetSize(in); err == nil {
			_ = tty.SetSize(s.terminal, size) // a size is a courtesy
		}
		restore, err := tty.MakeRaw(in)
		if err != nil {
			return err
		}
		s.restore = restore
	}
	if !tty.Is(out) {
		if err := tty.KeepNewlines(s.terminal); err != nil {
			return err
		}
	}
	go func() {
		defer close(s.output)
		s.copyOutput(out)
	}()
	go func() {
		// It may be blocked in a read when the session ends; then the command ends
		// with it. The end of our input is not the end of the terminal's.
		_, _ = io.Copy(s.terminal, in)
	}()
	return nil
}

// forward hands signals on until the session ends.
func (s *session) forward(c *command, send func(syscall.Signal) error) {
	for {
		select {
		case <-s.done:
			return
		case sig := <-s.signals:
			if sig == syscall.SIGWINCH {
				s.resize(c.stdin)
				continue
			}
			_ = send(sig.(syscall.Signal)) // it may have ended
		}
	}
}

func (s *session) resize(in *os.File) {
	if s.terminal == nil || s.restore == nil {
		return
	}
	if size, err := tty.GetSize(in); err == nil {
		_ = tty.SetSize(s.terminal, size)
	}
}

// copyOutput writes what comes from the terminal, until EIO says that the last
// process has closed its side.
func (s *session) copyOutput(out io.Writer) {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.terminal.Read(buf)
		s.writing.Store(true)
		if n > 0 {
			var wrote int
			if wrote, err = out.Write(buf[:n]); wrote < n {
				return
			}
			s.copied.Add(int64(n))
		}
		if err != nil {
			return
		}
		select {
		case s.moved <- struct{}{}:
		default:
		}
		s.writing.Store(false)
	}
}

// quiet is how long a terminal has nothing to say after the process has ended, and
// kernelHolds more bytes than it can have written that were not read: a terminal has
// 64 KiB for each side (tty_buffer.c) and 4 KiB of its line discipline. Another
// process may hold the terminal open for ever, and write all the time.
const (
	quiet       = 500 * time.Millisecond
	kernelHolds = 256 << 10
)

// drain delivers the last output of a process that has ended, however slowly it is
// read. Signals end this, as there is no process any more to have them.
func (s *session) drain() {
	s.stop()
	for end := s.copied.Load() + kernelHolds; s.copied.Load() < end; {
		select {
		case <-s.output:
			return
		case <-s.moved:
			continue
		case sig := <-s.signals:
			if slices.Contains(ending, sig) {
				return
			}
			continue
		case <-time.After(quiet):
		}
		if s.writing.Load() {
			continue
		}
		select {
		case <-s.moved: // just now
		default:
			return
		}
	}
}

// ending are the forwarded signals by which a person or an engine ends a command.
var ending = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM}

// stop ends the forwarding of signals.
func (s *session) stop() {
	s.once.Do(func() { close(s.done) })
	s.wg.Wait()
}

// undo gives the person's terminal its modes back.
func (s *session) undo() {
	if s.restore != nil {
		_ = s.restore() // the terminal may be gone
	}
}

// close ends the session.
func (s *session) close() {
	signal.Stop(s.signals)
	s.stop()
	s.undo()
	if s.terminal != nil {
		s.terminal.Close()
	}
}
