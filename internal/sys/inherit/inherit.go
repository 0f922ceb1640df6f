// Package inherit deals with the descriptors that a caller left open for us.
package inherit

import (
	"os"

	"golang.org/x/sys/unix"
)

// Stop keeps descriptors above standard error from the programs that this
// process starts: a supervisor outlives its command, and would hold a pipe, a
// lock or a directory of the caller's for as long as its workload runs. What
// os/exec is told to hand on it still does.
func Stop() error {
	return os.NewSyscallError("close_range", unix.CloseRange(3, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC))
}

// Has reports whether the descriptor fd is open and came from the caller: what
// this process itself opens is close-on-exec, and what it got cannot be.
func Has(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}
