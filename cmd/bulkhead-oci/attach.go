package main

import (
	"io"
	"os"
	"os/signal"
	"sync"
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
	output   chan struct{} // closed when the terminal has nothing more to say
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
		done: make(chan struct{}), output: make(chan struct{}),
	}
	signal.Notify(s.signals, forwarded...)
	c.release()
	if terminal == nil {
		close(s.output)
	} else if err := s.connect(c.stdin, c.stdout); err != nil {
		signal.Stop(s.signals)
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
		_, _ = io.Copy(out, s.terminal) // EIO when the last process has closed its side
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

// drain waits for the last output of a process that has ended.
func (s *session) drain() {
	select {
	case <-s.output:
	case <-time.After(drainTime):
	}
}

// close ends the session and gives the person's terminal its modes back.
func (s *session) close() {
	signal.Stop(s.signals)
	close(s.done)
	s.wg.Wait()
	if s.restore != nil {
		_ = s.restore() // the terminal may be gone
	}
	if s.terminal != nil {
		s.terminal.Close()
	}
}
