package attacks

import "golang.org/x/sys/unix"

// iopl is iopl(2), access to I/O ports.
func iopl(level int) error {
	_, _, e := unix.Syscall(unix.SYS_IOPL, uintptr(level), 0, 0)
	return errOf(e)
}
