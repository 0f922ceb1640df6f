// Package hook runs the hooks of the OCI runtime specification (config.md,
// POSIX-platform hooks): programs that the engine wants run at points of a
// container's life, with the container's state on their standard input.
//
// A hook is trusted, it comes from whoever wrote the configuration. Its output
// is not: it is bounded before it becomes part of an error.
package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
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

// maxTimeout is what a duration can hold of a hook's timeout, in seconds.
const maxTimeout = int(math.MaxInt64 / time.Second)

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

// Starter runs one hook's program with the given standard streams and returns
// when it has ended, nil if its exit code was 0. It ends the program when ctx
// is done.
type Starter func(ctx context.Context, h specs.Hook, stdio [3]*os.File) error

// RunIn is Run with a way of its own to run programs: hooks that belong into
// the container are run there.
func RunIn(ctx context.Context, point string, hooks []specs.Hook, state func() specs.State, start Starter) error {
	for i, h := range hooks {
		if err := runWith(ctx, h, state(), start); err != nil {
			err.Point, err.Index = point, i
			return err
		}
	}
	return nil
}

func run(ctx context.Context, h specs.Hook, state specs.State) *Error {
	return runWith(ctx, h, state, OnHost(""))
}

// OnHost returns a Starter that runs hooks from the calling thread, in its
// namespaces, with dir as working directory ("" is the caller's own). A hook
// gets exactly the arguments and environment that it names, and a process
// group of its own so that a timeout ends its children too.
func OnHost(dir string) Starter {
	return func(ctx context.Context, h specs.Hook, stdio [3]*os.File) error { return onHost(ctx, dir, h, stdio) }
}

func onHost(ctx context.Context, dir string, h specs.Hook, stdio [3]*os.File) error {
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Dir = args, dir
	cmd.Env = append([]string{}, h.Env...) // nil would mean this process's own
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio[0], stdio[1], stdio[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd.Run()
}

// runWith runs one hook with the state on its standard input and keeps the end
// of what it writes.
func runWith(ctx context.Context, h specs.Hook, state specs.State, start Starter) *Error {
	in, err := json.Marshal(state)
	if err != nil {
		return &Error{Path: h.Path, Err: err}
	}
	s, err := newStreams(in)
	if err != nil {
		return &Error{Path: h.Path, Err: err}
	}
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(min(*h.Timeout, maxTimeout))*time.Second)
		defer cancel()
	}
	err = start(ctx, h, s.theirs)
	s.finish()
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && h.Timeout != nil:
		err = fmt.Errorf("not finished after %d seconds: %w", *h.Timeout, ctx.Err())
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	e := &Error{Path: h.Path, Err: err, Output: s.out[1].line()}
	if e.Output == "" {
		e.Output = s.out[0].line()
	}
	return e
}

// streams are the pipes between this process and a hook.
type streams struct {
	theirs [3]*os.File
	ours   [3]*os.File
	out    [2]*tail
	wg     sync.WaitGroup
}

func newStreams(in []byte) (*streams, error) {
	s := &streams{out: [2]*tail{{}, {}}}
	for i := range s.theirs {
		r, w, err := os.Pipe()
		if err != nil {
			s.close()
			return nil, err
		}
		s.theirs[i], s.ours[i] = w, r
		if i == 0 {
			s.theirs[i], s.ours[i] = r, w
		}
	}
	s.wg.Go(func() {
		_, _ = s.ours[0].Write(in) // a hook need not read it
		s.ours[0].Close()
	})
	for i, t := range s.out {
		s.wg.Go(func() { _, _ = io.Copy(t, s.ours[i+1]) })
	}
	return s, nil
}

// finish collects the last output. A child that the hook left behind may hold
// the streams open: it is not waited for.
func (s *streams) finish() {
	for _, f := range s.theirs {
		f.Close()
	}
	end := time.Now().Add(drainTime)
	for _, f := range s.ours {
		_ = f.SetDeadline(end) // pipes have deadlines
	}
	s.wg.Wait()
	s.close()
}

func (s *streams) close() {
	for i := range s.theirs {
		if s.theirs[i] != nil {
			s.theirs[i].Close()
			s.ours[i].Close()
		}
	}
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
