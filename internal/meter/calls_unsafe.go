package meter

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The operations of futex(2), of words that one process has.
const (
	futexWaitPrivate = 0 | 128
	futexWakePrivate = 1 | 128
)

// futexWait sleeps while a word has a value, and may return earlier.
func futexWait(word *uint32, v uint32) error {
	switch _, _, e := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitPrivate, uintptr(v), 0, 0, 0); e {
	case 0, unix.EAGAIN, unix.EINTR:
		return nil
	default:
		return os.NewSyscallError("futex", e)
	}
}

func futexWake(word *uint32) {
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakePrivate, 1, 0, 0, 0) // fails only for words that are not there
}

// mapAndTouch maps pages of zeros, writes to each, and unmaps them.
func mapAndTouch(pages int) error {
	size := uintptr(os.Getpagesize())
	length := uintptr(pages) * size
	p, err := unix.MmapPtr(-1, 0, nil, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	for i := range uintptr(pages) {
		*(*byte)(unsafe.Add(p, i*size)) = 1
	}
	return os.NewSyscallError("munmap", unix.MunmapPtr(p, length))
}
