package container

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
)

// terminal is the master side of a pseudoterminal.
type terminal struct{ *os.File }

// terminalOf takes over f, nil for none. The runtime polls the result, so that
// Close ends a Read and deadlines work.
func terminalOf(f *os.File) (boundary.Terminal, error) {
	if f == nil {
		return nil, nil
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return terminal{os.NewFile(uintptr(fd), "terminal")}, nil
}

// Resize sets the size that programs inside see, and signals them.
func (t terminal) Resize(rows, cols uint16) error {
	raw, err := t.SyscallConn() // not Fd: that ends the polling
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
