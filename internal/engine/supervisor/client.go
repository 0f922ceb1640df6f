package supervisor

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// maxQueue is how much may wait for a client, in bytes; with the socket's own
// buffer it is what a client can be behind.
const maxQueue = 256 << 10

// patience is how long an attached client that reads nothing is waited for
// before it is dropped.
const patience = 10 * time.Second

var errSlow = errors.New("client does not read its output")

// client writes frames to one connection from a goroutine of its own, so that
// no sender depends on the other side's reading, unless it wants to: send waits
// while the queue is full.
//
// The client that a process was started for, in the foreground, holds the process up while
// its queue is full, for as long as its connection exists: that is what a pager
// at the end of a pipe is for. Any other client is dropped after patience, as it
// would hold up everybody. Nobody holds up the process's end: after lift, the
// last output, at most maxRest of each stream, is queued whatever the limit is.
type client struct {
	conn *os.File
	// foreground clients are never dropped.
	foreground bool
	patience   time.Duration // before any other client is
	// trace has the phases that are sent before the exit; nil for none.
	trace *trace.Recorder

	mu     sync.Mutex
	change sync.Cond // of all below
	queue  []byte
	free   bool  // the limit is lifted
	last   bool  // nothing will be queued any more
	err    error // the connection is of no use any more
	done   chan struct{}
}

func newClient(conn *os.File) *client {
	c := &client{conn: conn, patience: patience, done: make(chan struct{})}
	c.change.L = &c.mu
	go c.write()
	return c
}

// write sends what is queued until the end or an error.
func (c *client) write() {
	defer close(c.done)
	var spare []byte
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.last && c.err == nil {
			c.change.Wait()
		}
		b := c.queue
		if len(b) == 0 || c.err != nil {
			c.mu.Unlock()
			return
		}
		c.queue = spare[:0]
		c.change.Broadcast()
		c.mu.Unlock()
		if _, err := c.conn.Write(b); err != nil {
			c.fail(err)
			return
		}
		if spare = b; cap(spare) > 64<<10 {
			spare = nil
		}
	}
}

// fail gives the connection up and wakes everybody who waits for it.
func (c *client) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.queue = nil
	c.change.Broadcast()
	c.mu.Unlock()
	c.conn.SetDeadline(time.Unix(1, 0))
}

// send queues one frame. It waits while the queue is full.
func (c *client) send(t wire.Type, payload []byte) error {
	return c.put(func(q []byte) ([]byte, error) { return wire.AppendFrame(q, t, payload), nil })
}

func (c *client) put(frame func([]byte) ([]byte, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.room(); err != nil {
		return err
	}
	q, err := frame(c.queue)
	if err != nil {
		return err
	}
	c.queue = q
	c.change.Broadcast()
	return nil
}

// room waits until something may be queued; c.mu is held.
func (c *client) room() error {
	if len(c.queue) > maxQueue && !c.foreground {
		t := time.AfterFunc(c.patience, func() { c.fail(errSlow) })
		defer t.Stop()
	}
	for len(c.queue) > maxQueue && !c.free && c.err == nil {
		c.change.Wait()
	}
	return c.err
}

func (c *client) reply(r wire.Reply) error {
	return c.put(func(q []byte) ([]byte, error) { return wire.AppendJSON(q, wire.TypeReply, r) })
}

func (c *client) exit(e workload.Exit) error {
	if phases := c.trace.Take(); len(phases) > 0 {
		if err := c.put(func(q []byte) ([]byte, error) { return wire.AppendJSON(q, wire.TypeTrace, phases) }); err != nil {
			return err
		}
	}
	return c.put(func(q []byte) ([]byte, error) { return wire.AppendJSON(q, wire.TypeExit, e) })
}

func (c *client) window(n int) error {
	return c.put(func(q []byte) ([]byte, error) { return wire.AppendUint32(q, wire.TypeWindow, uint32(n)), nil })
}

// lift takes the limit off the queue.
func (c *client) lift() {
	c.mu.Lock()
	c.free = true
	c.change.Broadcast()
	c.mu.Unlock()
}

// finish sends what is queued, for at most d, and closes the connection.
func (c *client) finish(d time.Duration) {
	c.mu.Lock()
	c.last = true
	c.change.Broadcast()
	c.mu.Unlock()
	t := time.AfterFunc(d, func() { c.fail(errSlow) })
	<-c.done
	t.Stop()
	c.conn.Close()
}
