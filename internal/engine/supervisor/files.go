package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var errOver = errors.New("the workload has ended meanwhile")

// transfers are the requests about the files of one instance that are being
// served. They end with it.
type transfers struct {
	mu      sync.Mutex
	over    bool
	cancels map[*client]context.CancelFunc
}

// begin counts one.
func (t *transfers) begin(c *client) (ctx context.Context, done func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return nil, nil, errOver
	}
	if t.cancels == nil {
		t.cancels = map[*client]context.CancelFunc{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.cancels[c] = cancel
	return ctx, func() {
		cancel()
		t.mu.Lock()
		delete(t.cancels, c)
		t.mu.Unlock()
	}, nil
}

// end ends all of them: those that wait for their client too, as what they read
// would otherwise stay mounted.
func (t *transfers) end() {
	t.mu.Lock()
	t.over = true
	for c, cancel := range t.cancels {
		cancel()
		c.fail(errOver)
	}
	t.mu.Unlock()
}

// reachFiles returns the files of the instance there is.
func (s *supervisor) reachFiles() (boundary.Files, *transfers, error) {
	var inst boundary.Instance
	var t *transfers
	if s.held != nil {
		inst, t = s.held.inst, &s.held.files
	} else {
		l, err := s.running()
		if err != nil {
			return nil, nil, err
		}
		inst, t = l.inst, &l.files
	}
	f, ok := inst.(boundary.Files)
	if !ok {
		return nil, nil, fmt.Errorf("%w: boundary %q cannot reach the files of a workload", workload.ErrUnsupported, s.spec.Boundary)
	}
	return f, t, nil
}

// serveFiles serves one request about files.
func (s *supervisor) serveFiles(conn *os.File, r *wire.Reader, c *client, req *wire.Request) {
	reply := wire.Reply{}
	err := s.transfer(r, c, req, &reply)
	reply.Error = wire.NewError(err)
	c.reply(reply)
	if req.Op == wire.OpWriteFiles && err != nil {
		// What the client still sends is taken until it has read the reply.
		conn.SetReadDeadline(time.Now().Add(requestTimeout))
		for err = nil; err == nil; {
			_, _, err = r.Next()
		}
	}
}

func (s *supervisor) transfer(r *wire.Reader, c *client, req *wire.Request, reply *wire.Reply) error {
	what := req.Files
	if what == nil {
		what = &wire.Files{}
	}
	f, t, err := s.reachFiles()
	if err != nil {
		return err
	}
	ctx, done, err := t.begin(c)
	if err != nil {
		return err
	}
	defer done()
	state.Did("files: begun")
	c.foreground = true // a reader at the end of a pipe may take its time
	out := frames{c}
	switch req.Op {
	case wire.OpWriteFiles:
		return f.WriteArchive(ctx, what.Path, what.Write, &input{r: r})
	case wire.OpStatPath:
		st, err := f.StatPath(ctx, what.Path)
		if err == nil {
			reply.Path = &st
		}
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		r.Next() // the client says nothing more: this is its end
		cancel()
		c.fail(io.EOF)
	}()
	if req.Op == wire.OpReadFiles {
		return f.ReadArchive(ctx, what.Path, what.Read, out)
	}
	changes, err := f.Changes(ctx)
	if err == nil {
		err = workload.WriteChanges(out, changes)
	}
	return err
}

// frames writes a stream as Stdout frames.
type frames struct{ c *client }

func (f frames) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		k := min(len(p), wire.MaxData)
		if err := f.c.send(wire.TypeStdout, p[:k]); err != nil {
			return n, err
		}
		n, p = n+k, p[k:]
	}
	return n, nil
}

// input reads the stream of Stdin frames up to CloseStdin.
type input struct {
	r    *wire.Reader
	rest []byte
	err  error
}

func (in *input) Read(p []byte) (int, error) {
	for len(in.rest) == 0 && in.err == nil {
		t, payload, err := in.r.Next()
		switch {
		case err != nil:
			in.err = fmt.Errorf("%w: cut off in an archive", wire.ErrProtocol)
		case t == wire.TypeStdin:
			in.rest = payload
		case t == wire.TypeCloseStdin:
			in.err = io.EOF
		default:
			in.err = fmt.Errorf("%w: frame of type %d in an archive", wire.ErrProtocol, t)
		}
	}
	if len(in.rest) == 0 {
		return 0, in.err
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}
