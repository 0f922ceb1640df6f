package probe

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setNoHostname asks for a name of negative length.
func setNoHostname() error {
	if _, _, errno := unix.Syscall(unix.SYS_SETHOSTNAME, 0, ^uintptr(0), 0); errno != 0 {
		return errno
	}
	return nil
}

// fileSystem is what statfs(2) tells: the type of the file system that
// path lies on, its flags, and its size.
func fileSystem(path string) (kind int64, flags int64, bytes uint64, err error) {
	var s unix.Statfs_t
	err = unix.Statfs(path, &s)
	return s.Type, s.Flags, uint64(s.Bsize) * s.Blocks, err
}

// getcwd is getcwd(2): the kernel's own words, which begin with "(unreachable)" for
// a directory that the process's root does not hold.
func getcwd() (string, error) {
	b := make([]byte, unix.PathMax)
	n, _, errno := unix.Syscall(unix.SYS_GETCWD, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return "", errno
	}
	return unix.ByteSliceToString(b[:n]), nil
}
