package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// Host is a tenant's machine by the run-time directory of its supervisor. It
// implements boundary.Host.
type Host struct{ Dir string }

// Dial opens a stream to the guest's agent.
func (h Host) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	f, _, err := h.ask(ctx, &Request{Op: OpDial})
	return f, err
}

// Insert shows the guest an image as a disk. The connection to the supervisor
// holds it: it is released too when this process ends.
func (h Host) Insert(ctx context.Context, image string) (serial string, release func(), err error) {
	f, reply, err := h.ask(ctx, &Request{Op: OpInsert, Image: image})
	if err != nil {
		return "", nil, err
	}
	return reply.Serial, func() { f.Close() }, nil
}

// Plug connects a network device of the guest with a tap device or a stream. The
// connection to the supervisor holds it, as with Insert.
func (h Host) Plug(ctx context.Context, tap *os.File, stream bool) (device string, release func(), err error) {
	f, _, err := h.ask(ctx, &Request{Op: OpPlug, Stream: stream})
	if err != nil {
		return "", nil, err
	}
	reply, err := plug(ctx, f, tap)
	if err != nil {
		f.Close()
		return "", nil, err
	}
	return reply.Device, func() { f.Close() }, nil
}

// plug sends the descriptor and waits for what comes of it.
func plug(ctx context.Context, f, tap *os.File) (*Reply, error) {
	stop := context.AfterFunc(ctx, func() { f.SetDeadline(time.Unix(1, 0)) })
	err := SendFile(f, tap)
	var reply Reply
	if err == nil {
		err = NewReader(f).Message(TypeReply, &reply)
	}
	if err == nil && reply.Error != nil {
		err = reply.Error
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	return &reply, err
}

// ask sends a request on a connection of its own, which it returns with the
// reply.
func (h Host) ask(ctx context.Context, req *Request) (*os.File, *Reply, error) {
	req.Version = Version
	f, err := Dial(h.Dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		err = fmt.Errorf("the machine has ended: %w", err)
	}
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { f.SetDeadline(time.Unix(1, 0)) })
	b, err := AppendJSON(nil, TypeRequest, req)
	if err == nil {
		_, err = f.Write(b)
	}
	var reply Reply
	if err == nil {
		// A Reader takes no byte beyond the frame: those are the stream's.
		err = NewReader(f).Message(TypeReply, &reply)
	}
	if err == nil && reply.Error != nil {
		err = reply.Error
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, &reply, nil
}
