package engine

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Engine is one state root, opened. Its methods may be called at the same time
// from several goroutines, and several processes may hold engines on one root.
type Engine struct{}

// Open makes the state directories if they are missing, and cleans up after
// supervisors that are gone and commands that were killed.
func Open(ctx context.Context, cfg Config) (*Engine, error) { return nil, errors.ErrUnsupported }

// Close releases what the engine holds; workloads keep running.
func (e *Engine) Close() error { return errors.ErrUnsupported }

// Create records a new workload and prepares what it needs, without starting
// anything. An empty s.ID, s.Name and a zero s.Created are filled in. The error
// wraps workload.ErrNameTaken, idrange.ErrExhausted, or what the image source
// and the boundary's Check returned. On error nothing is left behind.
func (e *Engine) Create(ctx context.Context, s workload.Spec) (*Record, error) {
	return nil, errors.ErrUnsupported
}

// Run is Create, Start and, if io is not nil, Attach, in one go. With a nil io
// the session is only good for its Record, and is closed. If the workload
// cannot be started, it is removed; the error is that of Start.
func (e *Engine) Run(ctx context.Context, s workload.Spec, io *Streams) (*Session, error) {
	return nil, errors.ErrUnsupported
}

// Start starts a workload that is created or exited. The error wraps
// workload.ErrRunning, ErrCommandNotFound or ErrNotExecutable, among others;
// the workload then stays as it was. With a nil io the session is closed.
func (e *Engine) Start(ctx context.Context, ref string, io *Streams) (*Session, error) {
	return nil, errors.ErrUnsupported
}

// Attach connects io to the first process of a running workload. Output from
// before is in the log, not here. The error wraps workload.ErrNotRunning.
func (e *Engine) Attach(ctx context.Context, ref string, io *Streams) (*Session, error) {
	return nil, errors.ErrUnsupported
}

// Exec runs another process in a running workload. p is complete, as in a Spec:
// nothing of the workload's own environment, directory or user is added
// (start from Record.Spec.Process). With a nil io the process runs unattended
// and its output is dropped. The error wraps workload.ErrNotRunning,
// ErrCommandNotFound or ErrNotExecutable, among others.
func (e *Engine) Exec(ctx context.Context, ref string, p workload.Process, io *Streams) (*Session, error) {
	return nil, errors.ErrUnsupported
}

// Kill sends sig to the first process of a running or paused workload.
func (e *Engine) Kill(ctx context.Context, ref string, sig syscall.Signal) error {
	return errors.ErrUnsupported
}

// Stop sends the workload's stop signal, and SIGKILL to all of it when it has
// not ended after timeout; nil stands for the workload's own StopTimeout. It
// returns when the workload has ended; one that is not running is no error.
func (e *Engine) Stop(ctx context.Context, ref string, timeout *time.Duration) error {
	return errors.ErrUnsupported
}

// Wait returns how the workload ended, at once if it is not running. One that
// never ran gives workload.ErrNotRunning.
func (e *Engine) Wait(ctx context.Context, ref string) (workload.Exit, error) {
	return workload.Exit{}, errors.ErrUnsupported
}

// Remove removes a workload and everything that belongs to it. One that is
// running or paused gives workload.ErrRunning, unless force is set, which kills
// it first.
func (e *Engine) Remove(ctx context.Context, ref string, force bool) error {
	return errors.ErrUnsupported
}

// Pause stops all processes of a running workload. The error wraps
// workload.ErrUnsupported where the boundary cannot.
func (e *Engine) Pause(ctx context.Context, ref string) error { return errors.ErrUnsupported }

// Unpause lets a paused workload continue.
func (e *Engine) Unpause(ctx context.Context, ref string) error { return errors.ErrUnsupported }

// Processes returns the host IDs of all processes of a running workload.
func (e *Engine) Processes(ctx context.Context, ref string) ([]int, error) {
	return nil, errors.ErrUnsupported
}

// List returns all workloads, oldest first.
func (e *Engine) List(ctx context.Context) ([]*Record, error) { return nil, errors.ErrUnsupported }

// Inspect returns one workload. ref, here and elsewhere, is a whole ID, a name,
// or the beginning of an ID, tried in this order. The error wraps
// workload.ErrNotFound or ErrAmbiguous.
func (e *Engine) Inspect(ctx context.Context, ref string) (*Record, error) {
	return nil, errors.ErrUnsupported
}

// Explain writes what starting the workload s would do, and makes nothing. The
// ID range it shows is the first one that could be used.
func (e *Engine) Explain(ctx context.Context, s workload.Spec, w io.Writer) error {
	return errors.ErrUnsupported
}

// LogOptions selects a part of a log.
type LogOptions struct {
	Follow       bool      // continue until the workload ends
	Tail         int       // only the last lines; negative for all
	Since, Until time.Time // zero for no bound
	Timestamps   bool      // RFC 3339 with nanoseconds before each line
}

// Logs writes the output of a workload that is still kept, each stream to its
// own writer; nil drops one. Without Timestamps the bytes are those that the
// workload wrote.
func (e *Engine) Logs(ctx context.Context, ref string, o LogOptions, stdout, stderr io.Writer) error {
	return errors.ErrUnsupported
}
