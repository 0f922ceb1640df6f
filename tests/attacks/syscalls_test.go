package attacks

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// swapoff is swapoff(2).
func swapoff(name *byte) error {
	_, _, e := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(name)), 0, 0)
	return errOf(e)
}
