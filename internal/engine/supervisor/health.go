package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/stdio"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// checker checks the health of one life:
//
//	interval ──> check ──> result recorded ──> interval …
//	   │ paused: waits        │ paused meanwhile: no result
//
// A check is a process like any that exec makes; nothing is copied or started
// for it on the host. Its end, and that of the checker, is at the latest when the life's
// instance is deleted.
type checker struct {
	s      *supervisor
	l      *life
	h      workload.Health
	health workload.HealthState
	cancel context.CancelFunc
	done   chan struct{}
}

// stubborn is how long a check may take to end after it was killed, before it is
// left to the end of the workload.
const stubborn = 10 * time.Second

// check begins to check the health of a life, if that is asked for.
func (s *supervisor) check(l *life) {
	h := s.asked().Health
	if !h.Checked() {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &checker{s: s, l: l, h: h.Complete(), cancel: cancel, done: make(chan struct{})}
	c.health.Status = workload.Starting
	c.record()
	l.checker = c
	go func() {
		defer close(c.done)
		c.run(ctx)
	}()
}

// stop ends the checking, but not a check that runs: deleting the instance does.
func (c *checker) stop() {
	if c != nil {
		c.cancel()
	}
}

// wait returns when the checker has ended.
func (c *checker) wait() {
	if c != nil {
		<-c.done
	}
}

func (c *checker) run(ctx context.Context) {
	started := c.s.snapshot().Started
	for {
		pause := c.h.Interval
		if c.health.Status == workload.Starting && time.Since(started) < c.h.StartPeriod {
			pause = c.h.StartInterval
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		if paused, err := c.awaitUnpaused(ctx); err != nil {
			return
		} else if paused {
			continue // and gets an interval to collect itself
		}
		r, ok := c.probe(ctx)
		c.s.idle.Reset(settled)
		if ctx.Err() != nil {
			return
		}
		if ok {
			before := c.health.Status
			c.health.Add(c.h, started, r)
			c.record()
			if c.health.Status != before {
				c.s.happened("health_status: " + c.health.Status)
			}
		}
	}
}

// awaitUnpaused waits while the workload is paused, and reports whether it was.
func (c *checker) awaitUnpaused(ctx context.Context) (paused bool, err error) {
	for {
		now, changed := c.s.paused()
		if !now {
			return paused, nil
		}
		paused = true
		select {
		case <-changed:
		case <-ctx.Done():
			return paused, ctx.Err()
		}
	}
}

// record keeps what the checks have shown where commands find it. That a disk is
// full is no reason to stop checking.
func (c *checker) record() {
	h := c.health
	if err := c.s.layout.WriteHealth(c.s.spec.ID, &h); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// probe runs the command once. It returns false if that says nothing: the
// workload was paused meanwhile, or has ended.
func (c *checker) probe(ctx context.Context) (r workload.HealthResult, ok bool) {
	r.Start = time.Now()
	out, err := newTail(workload.HealthOutput)
	if err != nil {
		return c.broken(r, err), true
	}
	defer out.Drain()
	proc, err := c.l.inst.Exec(ctx, c.process(), out.Theirs())
	out.Begun(nil)
	if err != nil {
		return c.broken(r, err), !errors.Is(err, workload.ErrNotRunning)
	}
	ended := make(chan workload.Exit, 1)
	go func() {
		exit, err := proc.Wait(context.Background())
		if err != nil {
			exit = workload.Exit{Code: 255, Error: err.Error()}
		}
		ended <- exit
	}()
	t := time.NewTimer(c.h.Timeout)
	defer t.Stop()
	for late := false; ; {
		c.s.mu.Lock()
		paused, changed := c.s.state.Status == workload.Paused, c.s.changed
		c.s.mu.Unlock()
		if paused {
			kill(ctx, proc)
			<-ended // when it is unpaused, or gone
			return r, false
		}
		select {
		case exit := <-ended:
			r.End = time.Now()
			if late {
				return r, true
			}
			r.ExitCode, r.Output = exit.Code, out.text()
			return r, exit.Error == ""
		case <-t.C:
			if late {
				r.End = time.Now()
				return r, true
			}
			late = true
			r.ExitCode = -1
			t.Reset(stubborn)
			r.Output = strings.TrimLeft(fmt.Sprintf("%s\nhealth check took longer than %v and was killed", out.text(), c.h.Timeout), "\n")
			kill(ctx, proc)
		case <-changed:
		}
	}
}

// kill ends a check with all that it has started, as far as its boundary can:
// what a shell leaves behind would add up.
func kill(ctx context.Context, p boundary.Process) {
	if g, ok := p.(boundary.Group); ok && g.SignalGroup(ctx, syscall.SIGKILL) == nil {
		return
	}
	p.Signal(ctx, syscall.SIGKILL)
}

// broken is the result of a check that could not be made.
func (c *checker) broken(r workload.HealthResult, err error) workload.HealthResult {
	r.End, r.ExitCode = time.Now(), -1
	text := err.Error()
	r.Output = text[:min(len(text), workload.HealthOutput)]
	return r
}

// process is the command as a process like the workload's first.
func (c *checker) process() workload.Process {
	p := c.s.asked().Process
	p.Terminal, p.Rows, p.Cols = false, 0, 0
	p.Args = c.h.Test[1:]
	if c.h.Test[0] == "CMD-SHELL" {
		p.Args = append([]string{"/bin/sh", "-c"}, c.h.Test[1:]...)
	}
	return p
}

// tail keeps the last bytes that a process writes to either of its streams.
type tail struct {
	*stdio.Ends
	max int

	mu  sync.Mutex
	buf []byte
}

func newTail(max int) (*tail, error) {
	ends, err := stdio.New(stdio.Wanted{Out: true, Joined: true})
	if err != nil {
		return nil, err
	}
	t := &tail{Ends: ends, max: max}
	t.Pump(0, 4096, func(_ int, b []byte) error { t.add(b); return nil })
	return t, nil
}

func (t *tail) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
}

// text returns what was written so far, and reads no more. Others than the process
// that has ended may still hold the pipe open, and are not waited for.
func (t *tail) text() string {
	t.Drain()
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.buf), "\uFFFD")
}

// forgetHealth removes what an earlier run's checks have shown.
func (s *supervisor) forgetHealth() { os.Remove(s.layout.Health(s.spec.ID)) }
