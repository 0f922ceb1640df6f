package wire

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// errNoFile tells that no descriptor, or more than one, came along.
var errNoFile = fmt.Errorf("%w: one descriptor was to come", ErrProtocol)

// SendFile sends a descriptor beside one byte (SCM_RIGHTS, unix(7)). f stays the
// caller's.
func SendFile(conn, f *os.File) error {
	to, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	// The descriptor must not be closed, and its number another's, meanwhile.
	if cerr := raw.Control(func(fd uintptr) {
		rights := syscall.UnixRights(int(fd))
		err = to.Write(func(s uintptr) bool {
			for {
				_, sent = syscall.SendmsgN(int(s), []byte{0}, rights, nil, syscall.MSG_NOSIGNAL)
				if sent != syscall.EINTR {
					return sent != syscall.EAGAIN
				}
			}
		})
	}); cerr != nil {
		return cerr
	}
	return errors.Join(err, os.NewSyscallError("sendmsg", sent))
}

// ReceiveFile takes what SendFile sent.
func ReceiveFile(conn *os.File) (*os.File, error) {
	from, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	b, oob := make([]byte, 1), make([]byte, 256)
	var n, on, flags int
	var received error
	if err := from.Read(func(s uintptr) bool {
		for {
			n, on, flags, _, received = syscall.Recvmsg(int(s), b, oob, syscall.MSG_CMSG_CLOEXEC)
			if received != syscall.EINTR {
				return received != syscall.EAGAIN
			}
		}
	}); err != nil {
		return nil, err
	}
	if received != nil {
		return nil, os.NewSyscallError("recvmsg", received)
	}
	fds := descriptors(oob[:on])
	if n == 1 && len(fds) == 1 && flags&syscall.MSG_CTRUNC == 0 {
		return os.NewFile(uintptr(fds[0]), "descriptor"), nil
	}
	for _, fd := range fds {
		syscall.Close(fd)
	}
	return nil, errNoFile
}

// descriptors are all that came: the kernel has installed them by now.
func descriptors(oob []byte) (fds []int) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if some, err := syscall.ParseUnixRights(&m); err == nil {
			fds = append(fds, some...)
		}
	}
	return fds
}
