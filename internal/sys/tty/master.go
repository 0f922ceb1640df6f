package tty

import (
	"os"

	"golang.org/x/sys/unix"
)

// Master is the side of a pseudoterminal that a person sits at, see pty(7).
// The runtime polls it, so that Close ends a Read and deadlines work.
type Master struct{ *os.File }

// NewMaster takes f over, which must be a master of a pseudoterminal, and
// closes it whatever happens.
func NewMaster(f *os.File) (*Master, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &Master{os.NewFile(uintptr(fd), "terminal")}, nil
}

// Resize sets the size, in characters, that programs inside see, and signals
// them (TIOCSWINSZ in ioctl_tty(2)).
func (m *Master) Resize(rows, cols uint16) error {
	raw, err := m.SyscallConn() // not Fd: that ends the polling
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}); err != nil {
		return err
	}
	return os.NewSyscallError("ioctl TIOCSWINSZ", set)
}
