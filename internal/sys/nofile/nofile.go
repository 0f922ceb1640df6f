// Package nofile remembers the limit on open files that this program was
// started with.
//
// Package syscall raises the soft limit for our own use while the program is
// initialized, and execve(2) would hand the raised limit to a container. Go
// initializes packages in the order of their import paths where dependencies
// leave a choice (Go specification, "Package initialization"), so this
// package, which imports nothing, comes before syscall. TestBeforeSyscall
// holds that.
package nofile

// Soft and Hard are RLIMIT_NOFILE as they were when the program started, both
// 0 if they could not be read.
var Soft, Hard = read()

func read() (soft, hard uint64) {
	var lim [2]uint64 // struct rlimit64
	if prlimit(&lim) != 0 {
		return 0, 0
	}
	return lim[0], lim[1]
}

// prlimit is prlimit64(0, RLIMIT_NOFILE, NULL, lim).
//
//go:noescape
func prlimit(lim *[2]uint64) uintptr
