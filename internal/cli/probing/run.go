package probing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/probe"
	"github.com/seed-f5e3b97b/bulkhead/internal/report"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Inside is where the prober is in a workload, and how it is called.
const Inside = "/.bulkhead-probe"

// Command is the prober's command line in a workload.
func Command() []string { return []string{Inside, "-observe"} }

// Engine is what Run needs of an engine.
type Engine interface {
	Run(ctx context.Context, s workload.Spec, io *engine.Streams) (*engine.Session, error)
	Inspect(ctx context.Context, ref string) (*engine.Record, error)
	Remove(ctx context.Context, ref string, force bool) error
}

// Options say how to look.
type Options struct {
	Program string // the prober, a path on the host
	Timeout time.Duration
	Targets probe.Targets
	Host    *probe.Host
	Recheck string // the command that looks again
	// Labels are the workload's, beside those that it has: who finds it later can
	// tell by them whose it is.
	Labels map[string]string
}

// Run starts a workload of s with the prober as its program and returns what
// follows from what it says. The workload is removed. An error means that it could
// not be started; whatever it does afterwards makes findings unknown.
func Run(ctx context.Context, e Engine, s workload.Spec, o Options) (report.Report, error) {
	d := Declared(s)
	d.Recheck = o.Recheck
	s.Process.Args, s.KeepStdin, s.AutoRemove = Command(), true, true
	s.Log.Driver, s.Health, s.Restart = workload.LogNone, workload.Health{}, workload.Restart{}
	labels := map[string]string{}
	maps.Copy(labels, s.Labels)
	maps.Copy(labels, o.Labels)
	s.Labels = labels
	s.Mounts = append(s.Mounts, workload.Mount{Type: "bind", Source: o.Program, Target: Inside, ReadOnly: true})

	box := newInbox()
	in, feed := io.Pipe()
	session, err := e.Run(ctx, s, &engine.Streams{In: in, Out: box, Err: box.err()})
	if err != nil {
		feed.Close()
		return report.Report{}, err
	}
	c := probe.NewContext(o.Host, d)
	c.Targets = o.Targets
	if s.Boundary == workload.BoundaryRuntime {
		// Inside, it has limits in a cgroup that the runtime does not show.
		c.Targets.Pids, c.Targets.Memory = max(0, d.Pids), max(0, d.Memory)
	}
	seen, kernel, err := converse(ctx, e, session, feed, box, c, o.Timeout)
	feed.Close()
	end(ctx, e, session, err == nil)
	if ctx.Err() != nil {
		return report.Report{}, ctx.Err()
	}
	reason := ""
	if err != nil {
		seen, reason = nil, err.Error()
	}
	if seen != nil {
		if d.Passes, err = passes(s, kernel); err != nil {
			seen, reason = nil, err.Error()
		}
	}
	r := probe.Judge(c, seen, reason)
	r.Subject.Image, r.Subject.Engine, r.Subject.Label = s.Image.Reference, "bulkhead", s.Boundary
	switch {
	case s.VM.Tenant != "":
		r.Subject.Label = "tenant"
	case s.Boundary == workload.BoundaryRuntime:
		r.Subject.Label = s.Runtime.Name
	}
	if m := session.Record.Machine; m != nil && m.Accel == "tcg" {
		r.Subject.Note = "the machine is emulated, which QEMU's authors do not call a security boundary"
	}
	return r, nil
}

// converse gives the prober its targets, takes what it saw, and looks at it from
// outside while it waits. kernel is the release that its filter was made for.
func converse(ctx context.Context, e Engine, session *engine.Session, feed io.Writer, box *inbox, c *probe.Context, timeout time.Duration) (seen *probe.Observations, kernel string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	line, err := Tell(c.Targets)
	if err != nil {
		return nil, "", err
	}
	go func() {
		_, _ = feed.Write(line) // whoever does not read says nothing either
	}()
	ended := make(chan error, 1)
	go func() {
		exit, err := session.Wait(ctx)
		if err == nil {
			err = fmt.Errorf("the prober ended before it had told anything: exit code %d%s", exit.Code, oom(exit))
		}
		ended <- err
	}()
	var said []byte
	select {
	case said = <-box.line:
	case err := <-ended:
		select {
		case said = <-box.line: // it was faster than its end
		default:
			if ctx.Err() != nil {
				return nil, "", fmt.Errorf("the workload told nothing within %v", timeout)
			}
			return nil, "", box.explain(err)
		}
	case <-ctx.Done():
		return nil, "", fmt.Errorf("the workload told nothing within %v", timeout)
	}
	if said == nil {
		return nil, "", fmt.Errorf("the workload wrote more than %d bytes", probe.MaxObservations)
	}
	if seen, err = Heard(said, c.Targets); err != nil {
		return nil, "", err
	}
	kernel = seen.Kernel
	spec := session.Record.Spec
	if spec.Boundary == "vm" {
		return seen, kernel, nil // the host sees the machine and not the process
	}
	if !c.Declared.OwnKernel {
		kernel = c.Host.Release
		if seen.Kernel != kernel {
			return nil, "", fmt.Errorf("the workload says that it runs on Linux %.60q, the host runs %s", seen.Kernel, kernel)
		}
	}
	rec, err := e.Inspect(ctx, string(spec.ID))
	if err != nil || rec.PID == 0 {
		return nil, "", fmt.Errorf("the prober ended before it could be looked at from outside: %w", errors.Join(err, workload.ErrNotRunning))
	}
	c.Outside = outside(rec.PID, spec)
	if c.Declared.OwnKernel {
		return seen, kernel, nil // the host sees gVisor's kernel and not the process
	}
	return seen, kernel, witnessed(seen, "/proc/"+strconv.Itoa(rec.PID))
}

// Tell is the line that a prober reads: its targets. It learns nothing of the host.
func Tell(t probe.Targets) ([]byte, error) {
	c := probe.NewContext(nil, nil)
	c.Targets = t
	return c.Encode()
}

// Heard reads the line that a prober wrote, which may be anybody's. The error tells
// that it is not the answer to these targets.
func Heard(line []byte, t probe.Targets) (*probe.Observations, error) {
	seen, err := probe.Decode(line)
	if err != nil {
		return nil, fmt.Errorf("what the workload wrote is no prober's: %w", err)
	}
	if seen.Nonce != t.Nonce {
		return nil, errors.New("what the workload wrote does not have the word that the prober was given")
	}
	return seen, nil
}

func oom(exit workload.Exit) string {
	if exit.OOMKilled {
		return ", for want of memory"
	}
	return ""
}

// patience is how long a prober may take to end when its input has.
const patience = 5 * time.Second

// end waits for the workload's own end if it has done what it was asked for, or
// else removes it.
func end(ctx context.Context, e Engine, session *engine.Session, good bool) {
	if good {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if _, err := session.Wait(ctx); err == nil {
			return
		}
	}
	session.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	_ = e.Remove(ctx, string(session.Record.Spec.ID), true) // it may be gone by itself
}

// inbox takes one line of limited length, and the beginning of what is written to
// standard error. Whatever else comes is dropped.
type inbox struct {
	line chan []byte // nil for one that is too long

	mu     sync.Mutex
	buf    bytes.Buffer
	done   bool
	errors bytes.Buffer
}

func newInbox() *inbox { return &inbox{line: make(chan []byte, 1)} }

// Write takes a part of standard output. It never fails: a failure would end the
// session, and with it what says how the workload ended.
func (b *inbox) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return len(p), nil
	}
	n := bytes.IndexByte(p, '\n')
	switch {
	case n < 0 && b.buf.Len()+len(p) > probe.MaxObservations, n >= 0 && b.buf.Len()+n > probe.MaxObservations:
		b.done = true
		b.buf = bytes.Buffer{}
		b.line <- nil
	case n >= 0:
		b.done = true
		b.buf.Write(p[:n+1])
		b.line <- b.buf.Bytes()
	default:
		b.buf.Write(p)
	}
	return len(p), nil
}

// errorStream takes standard error.
type errorStream struct{ *inbox }

func (b *inbox) err() io.Writer { return errorStream{b} }

func (s errorStream) Write(p []byte) (int, error) {
	const most = 400
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errors.Write(p[:min(len(p), most-min(most, s.errors.Len()))])
	return len(p), nil
}

// explain adds what the workload wrote to standard error.
func (b *inbox) explain(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.errors.Len() == 0 {
		return err
	}
	return fmt.Errorf("%w: %q", err, bytes.TrimSpace(b.errors.Bytes()))
}
