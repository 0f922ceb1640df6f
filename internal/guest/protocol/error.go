package protocol

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// maxError is the most that an error says, in bytes, whether of a Reply or an Exit.
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
	e := &Error{Message: cut(err.Error(), maxError)}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			e.Kind = s.kind
			break
		}
	}
	return e
}

// cut returns at most n bytes of a text that goes into JSON. It cuts between
// characters and replaces what is none: JSON would, and so make more bytes of it.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
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
