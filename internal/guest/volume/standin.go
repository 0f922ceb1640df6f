package volume

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

// standIn answers a request in the place of a server that is still to come: that
// the root is a directory, which can be entered, or a file, which can be opened.
// Nothing that it says is kept by the kernel: it asks the server again. All else is
// an error, so that nobody takes this for the volume.
func (r *relay) standIn(request []byte) (reply []byte) {
	le := binary.LittleEndian
	h := fuse.ParseInHeader(request)
	body := request[fuse.InHeaderSize:]
	reply = make([]byte, fuse.OutHeaderSize, replySize)
	errno := unix.EIO
	switch h.Opcode {
	case fuse.Forget, fuse.BatchForget, fuse.Interrupt:
		return nil
	case fuse.Init: // struct fuse_init_in
		if len(body) < 16 {
			break
		}
		fields, ok := fuse.InitReply(le.Uint32(body), le.Uint32(body[4:]), le.Uint32(body[8:]), le.Uint32(body[12:]))
		if !ok {
			errno = unix.EPROTO
			break
		}
		errno = 0
		for _, f := range fields {
			reply = le.AppendUint32(reply, f)
		}
	case fuse.Getattr: // struct fuse_attr_out, valid for no time
		if h.NodeID != fuse.RootID {
			break
		}
		errno = 0
		reply = reply[:fuse.OutHeaderSize+104]
		le.PutUint32(reply[16+16+60:], r.rootMode|0o777)
		le.PutUint32(reply[16+16+64:], 1)
	case fuse.Getxattr: // the kernel asks for an access control list before it lets others in
		if h.NodeID == fuse.RootID {
			errno = unix.ENODATA
		}
	case fuse.Open: // struct fuse_open_out; no server has a handle 0
		errno = 0
		reply = reply[:fuse.OutHeaderSize+16]
	case fuse.Release, fuse.Destroy:
		errno = 0
	case fuse.Flush, fuse.Poll: // as the server says
		errno = unix.ENOSYS
	}
	le.PutUint32(reply, uint32(len(reply)))
	le.PutUint32(reply[4:], uint32(-int32(errno)))
	le.PutUint64(reply[8:], h.Unique)
	if h.Opcode == fuse.Init {
		r.mu.Lock()
		r.greeting, r.answer = append([]byte(nil), request...), append([]byte(nil), reply...)
		r.mu.Unlock()
	}
	return reply
}
