package volume

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

// Every open of package os adds the file to the runtime's poller, by a system
// call that the scheduler is not told of. On a volume that call asks the file
// server whether it knows FUSE_POLL, and waits; the relay may then never run
// again, because it is in the same process and waits for the same processor.
// So the kernel learns right after the mount that there is no FUSE_POLL, by a
// call that the scheduler knows of. It asks about open regular files only;
// since a directory need not have one, the relay shows one for that moment. It
// answers ENOSYS to all that the file is asked, which the kernel takes for the
// whole volume: nobody else may find the file, and with an fsync(2) or a
// getxattr(2) of it take these from every file.

const (
	pollName  = ".bulkhead-poll"
	pollNode  = 1<<64 - 2
	replySize = fuse.OutHeaderSize + 128
)

// teachPoll makes the kernel ask. name is a regular file of the volume.
func teachPoll(name string) error {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
		return fmt.Errorf("poll %s: %w", name, err)
	}
	return nil
}

// answerPoll answers what concerns the file that there is only for teachPoll, and
// that is found only while shown. ok is false for every other request, which the
// host answers.
func answerPoll(request []byte, shown bool) (reply []byte, ok bool) {
	h := fuse.ParseInHeader(request)
	lookup := shown && h.Opcode == fuse.Lookup && h.NodeID == fuse.RootID && string(request[fuse.InHeaderSize:]) == pollName+"\x00"
	if !lookup && h.NodeID != pollNode {
		return nil, false
	}
	le := binary.LittleEndian
	reply = make([]byte, fuse.OutHeaderSize, replySize)
	switch {
	case h.Opcode == fuse.Forget:
		return nil, true
	case lookup: // struct fuse_entry_out
		reply = reply[:replySize]
		le.PutUint64(reply[16:], pollNode)
		le.PutUint32(reply[16+40+60:], unix.S_IFREG|0o600)
		le.PutUint32(reply[16+40+64:], 1) // links
	case h.Opcode == fuse.Getattr: // struct fuse_attr_out
		reply = reply[:fuse.OutHeaderSize+104]
		le.PutUint32(reply[16+16+60:], unix.S_IFREG|0o600)
		le.PutUint32(reply[16+16+64:], 1)
	case h.Opcode == fuse.Open: // struct fuse_open_out
		reply = reply[:fuse.OutHeaderSize+16]
	case h.Opcode == fuse.Release:
	default:
		errno := unix.ENOSYS
		if h.Opcode == fuse.Getxattr { // of all files there would be no access control lists
			errno = unix.ENODATA
		}
		le.PutUint32(reply[4:], uint32(-int32(errno)))
	}
	le.PutUint32(reply, uint32(len(reply)))
	le.PutUint64(reply[8:], h.Unique)
	return reply, true
}
