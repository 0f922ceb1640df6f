// Package client is the host's half of the protocol between the host and the
// agent in a guest: what package boundary asks of a workload, asked of an agent.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ErrGuestLost tells that the connection to the agent ended while something
// was to come: the guest's end, the VMM's, or the protocol's. Whoever owns
// the machine knows which.
var ErrGuestLost = errors.New("the guest's agent is gone")

// Dial opens one stream to an agent: Session.Open, or a connection to a socket
// behind which somebody calls protocol.Relay. Closing a stream must end a Read
// and a Write of it.
type Dial func(context.Context) (io.ReadWriteCloser, error)

// Client talks to one agent. It keeps no connection: each call opens a stream.
// A call whose context ends returns its error, whatever the agent does.
type Client struct{ dial Dial }

// New returns a client.
func New(dial Dial) *Client { return &Client{dial: dial} }

// OverSession returns a client whose streams are those of s.
func OverSession(s *protocol.Session) *Client {
	return New(func(ctx context.Context) (io.ReadWriteCloser, error) {
		st, err := s.Open(ctx)
		if err != nil {
			return nil, err // not a *Stream that is nil
		}
		return st, nil
	})
}

// Delete ends a workload and removes all of it but its data. One that does not
// exist is no error.
func (c *Client) Delete(ctx context.Context, id workload.ID) error {
	_, err := c.call(ctx, protocol.Request{Op: protocol.OpDelete, ID: id})
	return err
}

// RemoveData removes what a deleted workload has written.
func (c *Client) RemoveData(ctx context.Context, id workload.ID) error {
	_, err := c.call(ctx, protocol.Request{Op: protocol.OpRemoveData, ID: id})
	return err
}

// Status asks the agent how the guest is.
func (c *Client) Status(ctx context.Context) (protocol.Status, error) {
	r, err := c.call(ctx, protocol.Request{Op: protocol.OpStatus})
	if err != nil {
		return protocol.Status{}, err
	}
	if r.Status == nil {
		return protocol.Status{}, fmt.Errorf("%w: a status without one", protocol.ErrProtocol)
	}
	return *r.Status, nil
}

// SetClock sets the guest's clock.
func (c *Client) SetClock(ctx context.Context, t time.Time) error {
	_, err := c.call(ctx, protocol.Request{Op: protocol.OpClock, Time: t})
	return err
}

// Clock reads the guest's clock, at some moment of the call.
func (c *Client) Clock(ctx context.Context) (time.Time, error) {
	r, err := c.call(ctx, protocol.Request{Op: protocol.OpClock})
	if err != nil {
		return time.Time{}, err
	}
	return r.Time, nil
}

// ShiftClock moves the guest's clock by d: gradually if it is little, else at once.
func (c *Client) ShiftClock(ctx context.Context, d time.Duration) error {
	_, err := c.call(ctx, protocol.Request{Op: protocol.OpClock, Shift: d})
	return err
}

// Reseed feeds the guest kernel's random generator with 32 to 512 bytes.
func (c *Client) Reseed(ctx context.Context, seed []byte) error {
	_, err := c.call(ctx, protocol.Request{Op: protocol.OpSeed, Seed: seed})
	return err
}

// PowerOff asks the guest to end. It returns when the agent has taken it up.
func (c *Client) PowerOff(ctx context.Context) error {
	_, err := c.call(ctx, protocol.Request{Op: protocol.OpPowerOff})
	return err
}

// KeepData removes what workloads other than keep wrote to the guest's disk. For
// a guest that runs none yet.
func (c *Client) KeepData(ctx context.Context, keep []workload.ID) error {
	_, err := c.call(ctx, protocol.Request{Op: protocol.OpKeepData, Keep: keep})
	return err
}

// AttachVolume mounts a volume, which may be a single file, in the guest under a
// name of 1 to 64 of a-z, 0-9 and "-". serve answers the FUSE requests that it reads, and is called in a
// goroutine of its own; the volume ends when serve returns or the returned
// function, which waits for that, is called.
func (c *Client) AttachVolume(ctx context.Context, name string, file bool, serve func(io.ReadWriteCloser)) (detach func(), err error) {
	conn, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	// The guest may ask for something before it replies that all is well, but its
	// requests come after the Reply.
	_, err = ask(ctx, conn, protocol.Request{Op: protocol.OpVolume, Volume: name, File: file})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("attach volume %s: %w", name, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close()
		serve(conn)
	}()
	return func() {
		conn.Close()
		<-done
	}, nil
}

// HoldVolume mounts a volume that AttachVolume serves later, under the same name, in
// this guest or in each clone of it.
func (c *Client) HoldVolume(ctx context.Context, name string, file bool) error {
	_, err := c.call(ctx, protocol.Request{Op: protocol.OpHold, Volume: name, File: file})
	return err
}

// open opens a stream.
func (c *Client) open(ctx context.Context) (io.ReadWriteCloser, error) {
	conn, err := c.dial(ctx)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("%w: %w", ErrGuestLost, err)
}

// call asks for what needs one Reply only.
func (c *Client) call(ctx context.Context, req protocol.Request) (*protocol.Reply, error) {
	conn, err := c.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the guest for %s: %w", req.Op, err)
	}
	defer conn.Close()
	reply, err := ask(ctx, conn, req)
	if err != nil {
		return nil, fmt.Errorf("ask the guest for %s: %w", req.Op, err)
	}
	return reply, nil
}

// ask sends a request and returns the reply. If ctx ends before that, conn is
// closed.
func ask(ctx context.Context, conn io.ReadWriteCloser, req protocol.Request) (*protocol.Reply, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err := protocol.NewWriter(conn).JSON(protocol.TypeRequest, req)
	var reply *protocol.Reply
	if err == nil || !errors.Is(err, protocol.ErrTooLong) {
		// An agent that refuses a request may close before it has read all of it.
		var rerr error
		if reply, rerr = protocol.NewReader(conn).Reply(); rerr == nil || err == nil {
			err = rerr
		}
		err = lost(err)
	}
	if !stop() {
		return nil, ctx.Err()
	}
	switch {
	case err != nil:
		return nil, err
	case reply.Error != nil:
		return nil, reply.Error
	}
	return reply, nil
}

// lost says that an error of a stream is the agent's end.
func lost(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrGuestLost, err)
}
