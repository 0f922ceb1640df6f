package protocol

import (
	"errors"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// maxError is the most that an error says, in bytes.
const maxError = 8 << 10

// Error is an error that crosses the stream. Kind keeps the sentinel errors
// that callers branch on; "" is any other error.
type Error struct {
	Kind    string `json:"kind,omitempty"`
	Message string `json:"message"`
}

// sentinels are looked through in this order: the first that fits is kept.
var sentinels = []struct {
	kind string
	err  error
}{
	{"command-not-found", workload.ErrCommandNotFound},
	{"not-executable", workload.ErrNotExecutable},
	{"not-found", workload.ErrNotFound},
	{"no-path", workload.ErrNoPath},
	{"not-running", workload.ErrNotRunning},
	{"running", workload.ErrRunning},
	{"unsupported", workload.ErrUnsupported},
	{"protocol", ErrProtocol},
}

// NewError returns err in the form that crosses the stream, nil for nil.
func NewError(err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{Message: err.Error()}
	if len(e.Message) > maxError {
		e.Message = e.Message[:maxError]
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			e.Kind = s.kind
			break
		}
	}
	return e
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the sentinel that e stands for, if any.
func (e *Error) Unwrap() error {
	for _, s := range sentinels {
		if s.kind == e.Kind {
			return s.err
		}
	}
	return nil
}
