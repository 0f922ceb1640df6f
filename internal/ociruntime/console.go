package ociruntime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/fdpass"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// console is the socket at which a runtime hands over a terminal; nil for none.
type console struct {
	i    *instance
	name string
	l    *fdpass.Listener
	end  context.CancelFunc
	came chan struct{} // closed once t and err are there
	t    boundary.Terminal
	err  error
}

// console waits for the terminal of a process, if it is to have one, and gives it
// its size at once: gVisor looks at no other, and the process will soon run.
func (i *instance) console(p workload.Process) (*console, error) {
	if !p.Terminal {
		return nil, nil
	}
	c := &console{i: i, name: consoleFile + strconv.FormatUint(i.logs.Add(1), 10), came: make(chan struct{})}
	var err error
	if c.l, err = fdpass.Listen(filepath.Join(i.dir, c.name)); err != nil {
		return nil, notRunning(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.end = cancel
	go func() {
		defer close(c.came)
		f, err := c.l.Receive(ctx)
		if err == nil {
			c.t, err = boundary.TerminalOf(f)
		}
		if err == nil && p.Rows > 0 && p.Cols > 0 {
			err = c.t.Resize(p.Rows, p.Cols)
		}
		c.err = err
	}()
	return c, nil
}

// close ends the waiting. A terminal that nobody took is closed.
func (c *console) close() {
	if c == nil {
		return
	}
	c.end()
	<-c.came
	if c.t != nil {
		c.t.Close()
	}
	c.l.Close()
	os.Remove(filepath.Join(c.i.dir, c.name))
}

// handover is how long a runtime that has ended may keep its terminal to itself:
// what it sent is there by then.
const handover = 5 * time.Second

var errNoTerminal = errors.New("it handed over no terminal")

// take takes the terminal, after the runtime's command.
func (c *console) take(ctx context.Context) (boundary.Terminal, error) {
	if c == nil {
		return nil, nil
	}
	timer := time.NewTimer(min(handover, c.i.runtime.timeout()))
	defer timer.Stop()
	var err error
	select {
	case <-c.came:
		err = c.err
	case <-timer.C:
		err = errNoTerminal
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return nil, &os.PathError{Op: "terminal of runtime", Path: c.i.runtime.Name, Err: err}
	}
	t := c.t
	c.t = nil
	return t, nil
}
