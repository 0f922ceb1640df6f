// Package hook runs the hooks of the OCI runtime specification (config.md,
// POSIX-platform hooks): programs that the engine wants run at points of a
// container's life, with the container's state on their standard input.
//
// A hook is trusted, it comes from whoever wrote the configuration. Its output
// is not: it is bounded before it becomes part of an error.
package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The points of a container's life at which hooks run, by their names in the
// configuration.
const (
	Prestart        = "prestart"
	CreateRuntime   = "createRuntime"
	CreateContainer = "createContainer"
	StartContainer  = "startContainer"
	Poststart       = "poststart"
	Poststop        = "poststop"
)

// maxOutput bounds what is kept of a hook's standard output and error, bytes
// each.
const maxOutput = 4 << 10

// drainTime is how long after a hook's end its children may hold its output
// open before it is no longer waited for.
const drainTime = 500 * time.Millisecond

// Error says which hook failed and why.
type Error struct {
	Point  string // such as CreateRuntime
	Index  int    // in the configuration's list
	Path   string
	Err    error  // *exec.ExitError, or why it could not be run or finish
	Output string // the end of what it wrote on its standard error, or output
}

// Error is one line. It begins with words that engines look for in the
// messages of runtimes.
func (e *Error) Error() string {
	s := fmt.Sprintf("error running %s hook #%d: %s: %v", e.Point, e.Index, e.Path, e.Err)
	if e.Output != "" {
		s += ": " + e.Output
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Run runs the hooks of one point in their order and stops at the first that
// fails. state is called before each hook, so that every hook sees the state
// of its own moment.
func Run(ctx context.Context, point string, hooks []specs.Hook, state func() specs.State) error {
	for i, h := range hooks {
		if err := run(ctx, h, state()); err != nil {
			err.Point, err.Index = point, i
			return err
		}
	}
	return nil
}

// RunAll runs every hook of one point, whatever becomes of the others, and
// returns the failures joined. Poststop hooks are run so: their errors are
// logged and nothing else (runtime.md, lifecycle).
func RunAll(ctx context.Context, point string, hooks []specs.Hook, state func() specs.State) error {
	var errs []error
	for i, h := range hooks {
		if err := run(ctx, h, state()); err != nil {
			err.Point, err.Index = point, i
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// run runs one hook with exactly the arguments and environment that it names,
// in a process group of its own so that a timeout ends its children too.
func run(ctx context.Context, h specs.Hook, state specs.State) *Error {
	in, err := json.Marshal(state)
	if err != nil {
		return &Error{Path: h.Path, Err: err}
	}
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	stdout, stderr := &tail{}, &tail{}
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args = args
	cmd.Env = append([]string{}, h.Env...) // nil would mean this process's own
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = drainTime
	err = cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil:
		return nil // it succeeded and left a child behind that holds its output
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && h.Timeout != nil:
		err = fmt.Errorf("not finished after %d seconds: %w", *h.Timeout, ctx.Err())
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	e := &Error{Path: h.Path, Err: err, Output: stderr.line()}
	if e.Output == "" {
		e.Output = stdout.line()
	}
	return e
}

// tail keeps the last maxOutput bytes written to it.
type tail struct {
	b   []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > maxOutput {
		p, t.cut = p[len(p)-maxOutput:], true
	}
	if over := len(t.b) + len(p) - maxOutput; over > 0 {
		t.b, t.cut = append(t.b[:0], t.b[over:]...), true
	}
	t.b = append(t.b, p...)
	return n, nil
}

// line returns what was written as one line without control characters, which
// could otherwise steer the terminal on which the error is shown.
func (t *tail) line() string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0):
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(t.b), "?"))
	s = strings.TrimSpace(s)
	if t.cut {
		s = "…" + s
	}
	return s
}
