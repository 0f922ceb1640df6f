package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/cli/advice"
	"github.com/seed-f5e3b97b/bulkhead/internal/cli/terminal"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// connection is how a person is connected to a process.
type connection struct {
	tty        bool // the process has a terminal
	stdin      bool // pass on what is typed
	detachKeys string
	sigProxy   bool // pass on signals; without, they end this program alone. With tty and stdin keys make them
	noOutput   bool
	noErr      bool // pass on standard output alone
	noOut      bool // pass on standard error alone
}

// checkTerminal refuses a terminal that nobody sits at, and detach keys that
// cannot be typed.
func (a *app) checkTerminal(tty, stdin bool, keys string) error {
	if _, err := detachKeys(keys); err != nil {
		return err
	}
	if tty && stdin && !terminal.IsTerminal(a.in) {
		return advice.New("-t with -i needs a terminal on standard input, and this is none",
			"leave out -t; in a pipe or script -i alone is right")
	}
	return nil
}

// detachKeys reads --detach-keys.
func detachKeys(s string) ([]byte, error) {
	keys, err := engine.ParseDetachKeys(s)
	if err != nil {
		return nil, advice.Wrap(err, fmt.Sprintf("--detach-keys %q: not a sequence of keys", s), "write single characters and ctrl-X, such as ctrl-p,ctrl-q, or \"\" for none")
	}
	return keys, nil
}

// streams returns the caller's ends of a process's streams.
func (a *app) streams(c connection) (*engine.Streams, error) {
	keys, err := detachKeys(c.detachKeys)
	if err != nil {
		return nil, err
	}
	s := &engine.Streams{}
	if !c.noOutput {
		s.Out, s.Err = a.out, a.err
	}
	if c.noOut {
		s.Out = nil
	}
	if c.noErr {
		s.Err = nil
	}
	if c.stdin {
		s.In = a.in
	}
	if c.tty {
		s.Rows, s.Cols = terminal.Size(a.in)
		if c.stdin {
			s.DetachKeys = keys
		}
	}
	return s, nil
}

// interact connects a person to the session that begin makes, waits for its end
// and returns how the process ended. What the person detached from ends with
// engine.ErrDetached.
func (a *app) interact(ctx context.Context, c connection, begin func(context.Context, *engine.Streams) (*engine.Session, error)) (workload.Exit, error) {
	streams, err := a.streams(c)
	if err != nil {
		return workload.Exit{}, err
	}
	var raw *terminal.Raw
	if c.tty && c.stdin && terminal.IsTerminal(a.in) {
		if raw, err = terminal.MakeRaw(a.in); err != nil {
			return workload.Exit{}, err
		}
		defer raw.Restore()
		defer terminal.GuardStart(raw, exitNow)()
	}
	session, err := begin(ctx, streams)
	if err != nil {
		return workload.Exit{}, err
	}
	defer session.Close()
	if !c.tty && !c.sigProxy {
		// Signals are nobody's but this program's: they end it as they end any
		// other, and the process goes on.
		return session.Wait(ctx)
	}
	defer a.watch(ctx, c, raw, session)()
	// From here on signals are the process's or the guard's: they no longer
	// cancel.
	return session.Wait(context.WithoutCancel(ctx))
}

// impatient is the number of SIGINT after which this program ends, though the
// process does not. The first process of a pid namespace ignores signals that it
// has no handler for (pid_namespaces(7)).
const impatient = 3

// watch follows window size and signals until the returned function is called.
func (a *app) watch(ctx context.Context, c connection, raw *terminal.Raw, session *engine.Session) (stop func()) {
	if !c.tty {
		return terminal.Proxy(ctx, a.forward(session))
	}
	resize := func() {
		if rows, cols := terminal.Size(a.in); rows > 0 && cols > 0 {
			_ = session.Resize(rows, cols) // the process may just have ended
		}
	}
	resize() // the window may have changed since the streams were made
	if c.stdin || !c.sigProxy {
		return terminal.Guard(ctx, raw, resize, exitNow)
	}
	unwatch, unproxy := terminal.Resized(resize), terminal.Proxy(ctx, a.forward(session))
	return func() {
		unproxy()
		unwatch()
	}
}

// forward passes on signals, and ends this program at the third SIGINT.
func (a *app) forward(session *engine.Session) func(syscall.Signal) {
	var interrupts atomic.Int32
	return func(sig syscall.Signal) {
		if sig == syscall.SIGINT && interrupts.Add(1) == impatient {
			a.warn(fmt.Sprintf("the command does not end on SIGINT and goes on; `bulkhead stop %s` ends it, and with --init it would have ended", session.Record.Spec.Name))
			exitNow(128 + int(syscall.SIGINT))
		}
		_ = session.Signal(sig) // the process may just have ended
	}
}

// finish turns the end of a session into the exit of this program. An
// out-of-memory kill is told, as the exit code alone does not show it.
func (a *app) finish(name string, exit workload.Exit, err error) error {
	switch {
	case errors.Is(err, engine.ErrDetached):
		fmt.Fprintln(a.err, "\ndetached") // the cursor stands behind a prompt
		return nil
	case err != nil:
		return err
	}
	if exit.OOMKilled {
		a.warn(fmt.Sprintf("%s: the kernel killed a process for exceeding the memory limit", name))
	}
	if exit.Error != "" {
		return fmt.Errorf("%s: %s", name, exit.Error)
	}
	if exit.Code != 0 {
		return exitStatus(exit.Code)
	}
	return nil
}
