package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// errGone tells that the supervisor ended without answering.
var errGone = errors.New("supervisor is gone")

// conn is a connection to a supervisor. Frames may be sent from several
// goroutines and are read by one.
type conn struct {
	f *os.File
	r *wire.Reader

	// phases takes what comes of the trace of a start, where it was asked for.
	phases func([]trace.Phase)

	mu  sync.Mutex // of writing
	buf []byte
}

func newConn(f *os.File) *conn { return &conn{f: f, r: wire.NewReader(f)} }

// send sends the frames that f appends.
func (c *conn) send(f func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = f(c.buf[:0])
	_, err := c.f.Write(c.buf)
	return gone(err)
}

// ask sends the request and returns the reply, whose error is returned as one.
func (c *conn) ask(ctx context.Context, req *wire.Request) (*wire.Reply, error) {
	stop := context.AfterFunc(ctx, func() { c.f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := wire.AppendJSON(nil, wire.TypeRequest, req)
	if err != nil {
		return nil, fmt.Errorf("ask supervisor: %w", err)
	}
	var reply wire.Reply
	if _, err = c.f.Write(b); err == nil || errors.Is(err, syscall.EPIPE) {
		// A supervisor that refuses at once may have left its reply.
		err = c.r.Message(wire.TypeReply, &reply)
	}
	if c.phases != nil {
		c.phases(reply.Phases)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, gone(err)
	case reply.Error != nil:
		return nil, reply.Error
	}
	return &reply, nil
}

// gone turns the ways in which a connection shows that the other side has ended
// into errGone.
func gone(err error) error {
	if err == io.EOF || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrClosed) {
		return errGone
	}
	return err
}

// call asks the supervisor of a running workload. With keep set the caller gets
// the connection, else it is closed. Without a supervisor the workload is cleaned
// up and the error wraps workload.ErrNotRunning or ErrNotFound.
func (e *Engine) call(ctx context.Context, id workload.ID, req *wire.Request, keep bool) (*conn, *wire.Reply, error) {
	req.Version = wire.Version
	var c *conn
	var reply *wire.Reply
	err := e.reach(ctx, id, func(f *os.File) error {
		c = newConn(f)
		var err error
		if reply, err = c.ask(ctx, req); err != nil || !keep {
			f.Close()
		}
		return err
	})
	return c, reply, err
}

// reach connects to a supervisor and calls f. It tries again when the
// supervisor ends meanwhile: then the workload's lock becomes free, or its next
// supervisor answers.
func (e *Engine) reach(ctx context.Context, id workload.ID, f func(*os.File) error) error {
	return state.Retry(ctx, func() error {
		s, err := wire.Dial(e.layout.RunDir(id))
		if err == nil {
			if err = f(s); !errors.Is(err, errGone) {
				return err
			}
		}
		k, lerr := e.layout.TryLock(id)
		if lerr != nil {
			if errors.Is(lerr, state.ErrLocked) && err != nil && !absent(err) {
				return err // there is one, and it cannot be reached
			}
			return lerr
		}
		defer k.Unlock()
		if err := e.recover(ctx, id); err != nil {
			return err
		}
		return workload.ErrNotRunning
	})
}

// absent reports whether err says that nobody listens.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errGone)
}
