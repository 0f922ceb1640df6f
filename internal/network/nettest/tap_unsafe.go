package nettest

import (
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// Tap makes a tap device of this name in the network namespace of the calling
// thread, and returns the descriptor that a virtual machine gets. It ends with
// its last descriptor; the test closes this one.
func Tap(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := OpenTap(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// OpenTap is Tap for callers that are no tests' goroutines. Frames have no header
// before them, as those of the engine's networks have none.
func OpenTap(name string) (*os.File, error) {
	// Not os.OpenFile, which would poll a device that is not attached yet.
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	const (
		tunsetiff = 0x400454ca
		flags     = 0x0002 | 0x1000 // IFF_TAP, IFF_NO_PI
	)
	var request struct { // ifreq
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:syscall.IFNAMSIZ-1], name)
	request.flags = flags
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunsetiff, uintptr(unsafe.Pointer(&request))); errno != 0 {
		syscall.Close(fd)
		return nil, os.NewSyscallError("ioctl(TUNSETIFF)", errno)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}
