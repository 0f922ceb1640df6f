package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Files reaches the files of one workload, whether it runs or not. Errors about
// a path name it, and wrap workload.ErrNoPath if there is none.
type Files struct {
	Record *Record

	e    *Engine
	held *held // nil while the workload runs
}

// Files opens the way to a workload's files. One that does not run is created
// for that, without a network and without running anything of it, and as long as
// the way is open nobody else can start or remove it.
func (e *Engine) Files(ctx context.Context, ref string) (*Files, error) {
	const tries = 5 // it may be started or end meanwhile
	var err error
	for range tries {
		var r *Record
		if r, err = e.Inspect(ctx, ref); err != nil {
			return nil, err
		}
		f := &Files{Record: r, e: e}
		switch r.Status {
		case workload.Running, workload.Paused:
			if _, _, err = e.call(ctx, r.Spec.ID, &wire.Request{Op: wire.OpStatus}, false); err == nil {
				return f, nil
			}
			if !ended(err) {
				return nil, about("reach the files of", ref, err)
			}
		case workload.Restarting:
			return nil, about("reach the files of", ref, fmt.Errorf("%w: it is between two runs", workload.ErrNotRunning))
		default:
			if f.held, err = e.hold(ctx, r.Spec.ID); err == nil {
				return f, nil
			}
			if !errors.Is(err, workload.ErrRunning) {
				return nil, about("reach the files of", ref, err)
			}
		}
	}
	return nil, about("reach the files of", ref, err)
}

// Close ends the way.
func (f *Files) Close() error {
	if f.held == nil {
		return nil
	}
	h := f.held
	f.held = nil
	return h.close(context.Background())
}

// request begins a request on a connection of its own. The returned function
// ends it.
func (f *Files) request(ctx context.Context, req *wire.Request) (*conn, func(), error) {
	s, err := wire.Dial(f.e.layout.RunDir(f.Record.Spec.ID))
	if err != nil {
		if absent(err) {
			err = workload.ErrNotRunning
		}
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	end := func() {
		stop()
		s.Close()
	}
	req.Version = wire.Version
	b, err := wire.AppendJSON(nil, wire.TypeRequest, req)
	if err == nil {
		_, err = s.Write(b)
	}
	state.Did("files: asked")
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		end()
		return nil, nil, f.why(ctx, err)
	}
	return newConn(s), end, nil
}

// why explains the end of a connection.
func (f *Files) why(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(gone(err), errGone):
		return fmt.Errorf("%w: it ended meanwhile", workload.ErrNotRunning)
	}
	return err
}

// receive passes Stdout frames on to w, and returns the reply after them.
func (f *Files) receive(ctx context.Context, c *conn, w io.Writer) (*wire.Reply, error) {
	for {
		t, payload, err := c.r.Next()
		if err != nil {
			return nil, f.why(ctx, err)
		}
		switch {
		case t == wire.TypeReply:
			var reply wire.Reply
			if err := wire.Decode(payload, &reply); err != nil {
				return nil, err
			}
			if reply.Error != nil {
				return nil, reply.Error
			}
			return &reply, nil
		case t == wire.TypeStdout && w != nil:
			if _, err := w.Write(payload); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%w: unexpected frame of type %d", wire.ErrProtocol, t)
		}
	}
}

// ReadArchive writes a path as a tar stream to w; see boundary.Files.
func (f *Files) ReadArchive(ctx context.Context, path string, o boundary.ReadOptions, w io.Writer) error {
	c, end, err := f.request(ctx, &wire.Request{Op: wire.OpReadFiles, Files: &wire.Files{Path: path, Read: o}})
	if err != nil {
		return err
	}
	defer end()
	_, err = f.receive(ctx, c, w)
	return err
}

// WriteArchive unpacks a tar stream below the existing directory dir; see
// boundary.Files. A Read of r may still be under way when it returns with an
// error.
func (f *Files) WriteArchive(ctx context.Context, dir string, o boundary.ArchiveOptions, r io.Reader) error {
	c, end, err := f.request(ctx, &wire.Request{Op: wire.OpWriteFiles, Files: &wire.Files{Path: dir, Write: o}})
	if err != nil {
		return err
	}
	defer end()
	sent := make(chan error, 1)
	go func() {
		err := sendArchive(c, r)
		if err != nil {
			// Nothing more is to be expected but what it says of it, if anything.
			c.f.SetReadDeadline(time.Now().Add(time.Second))
		}
		sent <- err
	}()
	_, err = f.receive(ctx, c, nil)
	if err == nil {
		return nil
	}
	var said *wire.Error
	if errors.As(err, &said) {
		return err
	}
	select {
	case serr := <-sent:
		var mine *sourceError
		if errors.As(serr, &mine) && ctx.Err() == nil {
			return mine.err
		}
	default:
	}
	return err
}

// sourceError is an error of what was to be sent.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// sendArchive sends all of r.
func sendArchive(c *conn, r io.Reader) error {
	buf := make([]byte, wire.MaxData)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := c.send(func(b []byte) []byte { return wire.AppendFrame(b, wire.TypeStdin, buf[:n]) }); err != nil {
				return err
			}
		}
		if err == io.EOF { //nolint:errorlint // a wrapped one says that something broke
			return c.send(func(b []byte) []byte { return wire.AppendFrame(b, wire.TypeCloseStdin, nil) })
		}
		if err != nil {
			return &sourceError{err}
		}
	}
}

// StatPath describes a path without following a link at its end.
func (f *Files) StatPath(ctx context.Context, path string) (workload.PathStat, error) {
	c, end, err := f.request(ctx, &wire.Request{Op: wire.OpStatPath, Files: &wire.Files{Path: path}})
	if err != nil {
		return workload.PathStat{}, err
	}
	defer end()
	reply, err := f.receive(ctx, c, nil)
	if err != nil {
		return workload.PathStat{}, err
	}
	if reply.Path == nil {
		return workload.PathStat{}, fmt.Errorf("%w: a reply without a path", wire.ErrProtocol)
	}
	return *reply.Path, nil
}

// Changes lists what differs from the image, in the order of paths.
func (f *Files) Changes(ctx context.Context) ([]workload.Change, error) {
	c, end, err := f.request(ctx, &wire.Request{Op: wire.OpChanges})
	if err != nil {
		return nil, err
	}
	defer end()
	r, w := io.Pipe()
	go func() {
		_, err := f.receive(ctx, c, w)
		w.CloseWithError(err) // io.EOF for nil
	}()
	defer r.Close()
	return workload.ReadChanges(r)
}
