package agent

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// files serves a request about a workload's files. What the host sends for a
// write is read from the stream as it is unpacked.
func (a *Agent) files(ctx context.Context, st *stream, req *protocol.Request) {
	reply, err := a.transfer(ctx, st, req)
	st.reply(reply, err)
	if req.Op == protocol.OpWriteFiles && err != nil {
		// What the host still sends is taken until it has read the Reply and closes:
		// whoever carries the stream for it might lose that with what cannot be
		// delivered.
		timer := time.AfterFunc(linger, func() { st.Close() })
		defer timer.Stop()
		io.Copy(io.Discard, st.Stream)
	}
}

// linger is how long the host may take to read a Reply.
const linger = 10 * time.Second

func (a *Agent) transfer(ctx context.Context, st *stream, req *protocol.Request) (reply protocol.Reply, err error) {
	id, err := workload.ParseID(string(req.ID))
	if err != nil {
		return reply, fmt.Errorf("%w: %w", protocol.ErrProtocol, err)
	}
	what := req.Files
	if what == nil {
		if req.Op != protocol.OpChanges {
			return reply, fmt.Errorf("%w: %s of nothing", protocol.ErrProtocol, req.Op)
		}
		what = &protocol.Files{}
	}
	e, err := a.made(ctx, id)
	if err != nil {
		return reply, err
	}
	f, ok := e.inst.(boundary.Files)
	if !ok {
		return reply, fmt.Errorf("%w: reaching the files of this workload", workload.ErrUnsupported)
	}
	out := &protocol.Data{W: st.w, T: protocol.TypeStdout}
	switch req.Op {
	case protocol.OpReadFiles:
		o := boundary.ReadOptions{Follow: what.Follow, OneFileSystem: what.OneFileSystem}
		return reply, f.ReadArchive(ctx, what.Path, o, out)
	case protocol.OpWriteFiles:
		o := boundary.ArchiveOptions{Owners: what.Owners, NoOverwriteDir: what.NoOverwriteDir}
		return reply, f.WriteArchive(ctx, what.Path, o, &protocol.Input{R: st.r})
	case protocol.OpStatPath:
		s, err := f.StatPath(ctx, what.Path)
		if err != nil {
			return reply, err
		}
		reply.Path = &s
		return reply, nil
	}
	changes, err := f.Changes(ctx)
	if err == nil {
		err = workload.WriteChanges(out, changes)
	}
	return reply, err
}
