package supervisor

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/stdio"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/logfile"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// streams are one process's standard streams. What is read from them goes to the
// log and to all clients.
type streams struct {
	*stdio.Ends

	first *trace.Open // ends with the first output; nil without a trace
	open  bool        // the input outlives that of every client
	inMu  sync.Mutex  // orders writes of several clients

	mu      sync.Mutex
	clients []*client
	ended   *workload.Exit
}

// newStreams makes the pipes for a process that is about to be started.
func newStreams(terminal, input bool) (*streams, error) {
	ends, err := stdio.New(stdio.Wanted{Terminal: terminal, In: input, Out: true, Err: true})
	if err != nil {
		return nil, err
	}
	return &streams{Ends: ends}, nil
}

func (s *streams) hasInput() bool { return s.In() != nil }

// add gives c the output from now on, or the exit if that was the last.
func (s *streams) add(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		c.exit(*s.ended)
		return
	}
	s.clients = append(s.clients, c)
}

func (s *streams) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = slices.DeleteFunc(s.clients, func(x *client) bool { return x == c })
}

// pump begins to read the output; log may be nil.
func (s *streams) pump(log *logfile.Writer) {
	s.Pump(0, wire.MaxData, func(stream int, b []byte) error {
		s.first.End()
		if stream == stdio.Err {
			s.forward(wire.TypeStderr, logfile.Stderr, log, b)
		} else {
			s.forward(wire.TypeStdout, logfile.Stdout, log, b)
		}
		return nil
	})
}

// forward gives b to the log and to all clients.
func (s *streams) forward(t wire.Type, stream logfile.Stream, log *logfile.Writer, b []byte) {
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
func (s *streams) notice(log *logfile.Writer, line string) {
	end := "\n"
	if s.Terminal() != nil {
		end = "\r\n"
	}
	s.forward(wire.TypeStderr, logfile.Stderr, log, []byte("bulkhead: "+line+end))
}

// drain returns when all output that the process wrote has been queued for the
// clients and logged. The process has ended; others may still hold its streams
// open, and are not waited for.
func (s *streams) drain() {
	s.mu.Lock()
	for _, c := range s.clients {
		c.lift()
	}
	s.mu.Unlock()
	s.Drain()
}

// end tells all clients, present and to come, how the process ended.
func (s *streams) end(e workload.Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = &e
	for _, c := range s.clients {
		c.exit(e)
	}
}

// write gives b to the process. It waits until the process has read it.
func (s *streams) write(b []byte) error {
	s.inMu.Lock()
	defer s.inMu.Unlock()
	if s.In() == nil {
		return os.ErrClosed
	}
	_, err := s.In().Write(b)
	return err
}

// closeInput ends the process's standard input, where a client's end is its end. A
// terminal's is not: its client's terminal was hung up, and a shell that read that
// as ctrl-D would end, and with --rm take its files along.
func (s *streams) closeInput() error {
	if s.open || s.Terminal() != nil {
		return nil
	}
	s.inMu.Lock()
	defer s.inMu.Unlock()
	if s.In() == nil {
		return nil
	}
	return s.In().Close()
}

func (s *streams) resize(rows, cols uint16) error {
	if s.Terminal() == nil || rows == 0 || cols == 0 {
		return nil
	}
	if err := s.Terminal().Resize(rows, cols); err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}
