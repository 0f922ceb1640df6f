package engine

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ErrDetached is what Session.Wait returns after the detach keys were typed.
var ErrDetached = errors.New("detached")

// Streams are the caller's ends of a process's standard streams.
type Streams struct {
	// In is read until its end, which closes the process's standard input. Nil
	// leaves that input alone (open, if the workload keeps one). A Read of In
	// may still be blocked when the session is over.
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
}

// Wait returns when the process has ended and all its output has been written
// to the streams. It returns ErrDetached when the caller detached, and an error
// wrapping workload.ErrSupervisorLost when the supervisor is gone.
func (s *Session) Wait(ctx context.Context) (workload.Exit, error) {
	return workload.Exit{}, errors.ErrUnsupported
}

// Resize tells the process's terminal its new size; without a terminal it does
// nothing.
func (s *Session) Resize(rows, cols uint16) error { return errors.ErrUnsupported }

// Signal sends sig to the process of this session.
func (s *Session) Signal(sig syscall.Signal) error { return errors.ErrUnsupported }

// Close ends the session and leaves the process running. It may be called
// again.
func (s *Session) Close() error { return errors.ErrUnsupported }

// ParseDetachKeys reads the syntax of Docker's --detach-keys: a comma-separated
// list of single characters and ctrl-X, where X is a letter or one of @[\]^_ .
// "" is no sequence at all. DefaultDetachKeys is the usual choice.
func ParseDetachKeys(s string) ([]byte, error) { return nil, errors.ErrUnsupported }

// DefaultDetachKeys is what the command line uses when nothing else was said.
const DefaultDetachKeys = "ctrl-p,ctrl-q"
