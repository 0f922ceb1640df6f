package supervisor

import (
	"context"
	"fmt"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// serveHost lets the supervisor of another workload reach the machine that it
// runs in. The connection is the stream's, or the disk's, as long as both sides
// want.
func (s *supervisor) serveHost(conn *os.File, c *client, req *wire.Request) {
	l, err := s.running()
	if err != nil {
		c.reply(wire.Reply{Error: wire.NewError(err)})
		return
	}
	h, ok := l.inst.(boundary.Host)
	if !ok || !s.spec.VM.Machine {
		c.reply(wire.Reply{Error: wire.NewError(fmt.Errorf("%w: it is not the machine of a tenant", workload.ErrUnsupported))})
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if req.Op == wire.OpInsert {
		serial, release, err := h.Insert(ctx, req.Image)
		if err != nil {
			c.reply(wire.Reply{Error: wire.NewError(err)})
			return
		}
		c.reply(wire.Reply{Serial: serial})
		conn.Read(make([]byte, 1)) // nothing is said any more: this is its end
		release()
		return
	}
	stream, err := h.Dial(ctx)
	if err != nil {
		c.reply(wire.Reply{Error: wire.NewError(err)})
		return
	}
	// By hand and not through c, which would still be sending it beside the
	// stream.
	b, err := wire.AppendJSON(nil, wire.TypeReply, wire.Reply{})
	if err == nil {
		_, err = conn.Write(b)
	}
	if err == nil {
		protocol.Relay(conn, stream)
	}
	stream.Close()
}
