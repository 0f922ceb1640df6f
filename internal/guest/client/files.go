package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ErrStalled tells that an agent stopped in the middle of a transfer.
var ErrStalled = errors.New("the guest's agent does not answer")

// stall is how long an agent may neither send nor take anything.
const stall = 2 * time.Minute

var _ boundary.Files = (*Instance)(nil)

// transfer is one stream of files.
type transfer struct {
	conn  io.ReadWriteCloser
	r     *protocol.Reader
	w     *protocol.Writer
	stall time.Duration
	whole atomic.Bool // all that is to be sent has been, but for word of that
}

// begin asks for a transfer. The returned function ends it.
func (i *Instance) begin(ctx context.Context, req protocol.Request) (*transfer, func(), error) {
	conn, err := i.c.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	t := &transfer{conn: conn, r: protocol.NewReader(conn), w: protocol.NewWriter(conn), stall: stall}
	req.ID = i.id
	if err := t.limited(func() error { return t.w.JSON(protocol.TypeRequest, req) }); err != nil {
		stop()
		conn.Close()
		return nil, nil, err
	}
	return t, func() {
		stop()
		conn.Close()
	}, nil
}

// limited calls f, which waits for the agent, and gives the stream up when that
// takes too long.
func (t *transfer) limited(f func() error) error {
	timer := time.AfterFunc(t.stall, func() { t.conn.Close() })
	err := f()
	switch {
	case !timer.Stop() && err != nil:
		return fmt.Errorf("%w for %v", ErrStalled, t.stall)
	case errors.Is(err, protocol.ErrTooLong):
		return err
	}
	return lost(err)
}

// receive passes Stdout messages on to w until the Reply after them, whose error
// it returns.
func (t *transfer) receive(w io.Writer) error {
	for {
		var kind protocol.Type
		var payload []byte
		if err := t.limited(func() (err error) { kind, payload, err = t.r.Next(); return err }); err != nil {
			return err
		}
		switch {
		case kind == protocol.TypeReply:
			reply, err := protocol.ParseReply(payload)
			if err != nil {
				return lost(err)
			}
			if reply.Error != nil {
				return reply.Error
			}
			return nil
		case kind == protocol.TypeStdout && w != nil:
			if _, err := w.Write(payload); err != nil {
				return err
			}
		default:
			return lost(fmt.Errorf("%w: message of type %d in a transfer of files", protocol.ErrProtocol, kind))
		}
	}
}

// ended prefers the caller's own end over what it looks like.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// ReadArchive implements boundary.Files. What the guest sends as a tar stream is
// for the caller to distrust.
func (i *Instance) ReadArchive(ctx context.Context, path string, o boundary.ReadOptions, w io.Writer) error {
	t, end, err := i.begin(ctx, protocol.Request{Op: protocol.OpReadFiles, Files: &protocol.Files{Path: path, Follow: o.Follow, OneFileSystem: o.OneFileSystem}})
	if err != nil {
		return err
	}
	defer end()
	err = t.receive(w)
	return ended(ctx, err)
}

// WriteArchive implements boundary.Files. A Read of r may still be under way when
// it returns with an error.
func (i *Instance) WriteArchive(ctx context.Context, dir string, o boundary.ArchiveOptions, r io.Reader) error {
	t, end, err := i.begin(ctx, protocol.Request{Op: protocol.OpWriteFiles, Files: &protocol.Files{Path: dir, Owners: o.Owners, NoOverwriteDir: o.NoOverwriteDir}})
	if err != nil {
		return err
	}
	defer end()
	sent := make(chan error, 1)
	go func() { sent <- t.send(r) }()
	replied := make(chan error, 1)
	go func() {
		reply, err := protocol.NewReader(t.conn).Reply()
		switch {
		case err != nil:
			err = lost(err)
		case reply.Error != nil:
			err = reply.Error
		case !t.whole.Load():
			err = lost(fmt.Errorf("%w: success before the end of what was to be written", protocol.ErrProtocol))
		}
		replied <- err
	}()
	select {
	case err = <-replied: // early: it does not want more
		return ended(ctx, err)
	case err = <-sent:
	}
	var mine *inputError
	if errors.As(err, &mine) {
		t.conn.Close()
		<-replied
		return ended(ctx, mine.err)
	}
	timer := time.NewTimer(stall)
	defer timer.Stop()
	select {
	case rerr := <-replied: // which says more than a write that failed
		return ended(ctx, rerr)
	case <-timer.C:
		t.conn.Close()
		<-replied
		return ended(ctx, fmt.Errorf("%w for %v", ErrStalled, stall))
	}
}

// inputError is an error of what was to be sent.
type inputError struct{ err error }

func (e *inputError) Error() string { return e.err.Error() }

// send sends all of r.
func (t *transfer) send(r io.Reader) error {
	out := &protocol.Data{W: t.w, T: protocol.TypeStdin}
	buf := make([]byte, protocol.MaxData)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := t.limited(func() error { _, err := out.Write(buf[:n]); return err }); err != nil {
				return err
			}
		}
		if err == io.EOF { //nolint:errorlint // a wrapped one says that something broke
			t.whole.Store(true) // before the agent can know
			return t.limited(t.w.CloseStdin)
		}
		if err != nil {
			return &inputError{err}
		}
	}
}

// StatPath implements boundary.Files.
func (i *Instance) StatPath(ctx context.Context, path string) (workload.PathStat, error) {
	reply, err := i.c.call(ctx, protocol.Request{Op: protocol.OpStatPath, ID: i.id, Files: &protocol.Files{Path: path}})
	if err != nil {
		return workload.PathStat{}, unwrapped(err)
	}
	return protocol.ParseStat(reply)
}

// unwrapped leaves out that a guest was asked, where it has answered about a
// path of the user's.
func unwrapped(err error) error {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e
	}
	return err
}

// Changes implements boundary.Files.
func (i *Instance) Changes(ctx context.Context) ([]workload.Change, error) {
	t, end, err := i.begin(ctx, protocol.Request{Op: protocol.OpChanges})
	if err != nil {
		return nil, err
	}
	defer end()
	r, w := io.Pipe()
	go func() {
		err := t.receive(w)
		w.CloseWithError(err) // io.EOF for nil
	}()
	changes, err := workload.ReadChanges(r)
	r.Close()
	return changes, ended(ctx, err)
}
