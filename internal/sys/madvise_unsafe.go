package sys

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Range is a part of a process's memory.
type Range struct{ From, Length uintptr }

// maxRanges is IOV_MAX, the most ranges of one call (readv(2)).
const maxRanges = 1024

// PageOut asks the kernel to reclaim parts of another process's memory: clean
// pages of files are given up, and come back from the file when they are used.
// Without swap nothing else is. It returns how many bytes were looked at, as
// process_madvise(2) does (Linux 5.10); it needs CAP_SYS_NICE and the right to
// trace the process. Pages that several processes map are left alone (madvise(2),
// MADV_PAGEOUT).
func PageOut(pidfd int, ranges []Range) (advised int64, err error) {
	for len(ranges) > 0 {
		some := ranges[:min(len(ranges), maxRanges)]
		ranges = ranges[len(some):]
		want := int64(0)
		for _, r := range some {
			want += int64(r.Length)
		}
		n, err := processMadvise(pidfd, some, unix.MADV_PAGEOUT)
		advised += n
		if err != nil || n < want {
			return advised, err // less than was asked: what is left was unmapped meanwhile
		}
	}
	return advised, nil
}

func processMadvise(pidfd int, ranges []Range, advice int) (int64, error) {
	// Range is struct iovec in shape; its addresses are another process's.
	n, _, errno := unix.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(pidfd), uintptr(unsafe.Pointer(unsafe.SliceData(ranges))),
		uintptr(len(ranges)), uintptr(advice), 0, 0)
	runtime.KeepAlive(ranges)
	if errno != 0 {
		return 0, errno
	}
	return int64(n), nil
}
