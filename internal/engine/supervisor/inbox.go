package supervisor

import (
	"fmt"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
)

// inbox is the input of one client on its way to a process. It never holds
// more than the window, so taking a frame never waits.
type inbox struct {
	io *streams
	c  *client

	mu     sync.Mutex
	change sync.Cond
	buf    []byte
	window int  // what the client may still send
	eof    bool // close the process's input after buf
	over   bool // nothing follows buf
	begun  bool
}

func newInbox(io *streams, c *client) *inbox {
	in := &inbox{io: io, c: c, window: wire.StdinWindow}
	in.change.L = &in.mu
	return in
}

// put takes a frame of input.
func (in *inbox) put(b []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(b) > in.window {
		return fmt.Errorf("%w: more input than the window allows", wire.ErrProtocol)
	}
	in.window -= len(b)
	in.buf = append(in.buf, b...)
	in.wake()
	return nil
}

// closeInput closes the process's input after what was put.
func (in *inbox) closeInput() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.eof = true
	in.wake()
}

// finish ends the writing after what was put; the process's input stays open.
// A write that waits for the process ends with the process.
func (in *inbox) finish() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.over = true
	in.change.Broadcast()
}

// wake begins the writing at the first input: most clients have none.
func (in *inbox) wake() {
	if !in.begun {
		in.begun = true
		go in.write()
	}
	in.change.Broadcast()
}

func (in *inbox) write() {
	for {
		in.mu.Lock()
		for len(in.buf) == 0 && !in.eof && !in.over {
			in.change.Wait()
		}
		b, eof, over := in.buf, in.eof, in.over
		in.buf = nil
		in.mu.Unlock()
		if len(b) > 0 {
			// A process that does not want it is no reason to stop the client.
			in.io.write(b)
			in.mu.Lock()
			in.window += len(b)
			in.mu.Unlock()
			in.c.window(len(b))
			continue
		}
		if eof {
			in.io.closeInput()
		}
		if eof || over {
			return
		}
	}
}
