// Package nettest keeps tests off the machine's network. A test binary whose
// TestMain calls Isolate runs in a network namespace of its own, which has
// nothing but loopback: what it and the programs that it starts take for the
// host's network is empty, and no packet leaves it.
package nettest

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// isolated is set in a process that Isolate has moved.
const isolated = "BULKHEAD_NETTEST"

// Isolate executes the test binary again in a fresh network namespace, with
// loopback up. It returns in that process, or at once where the caller is not
// root, who cannot make networks either. Call it first in TestMain. What needs
// the machine's network is given as before, and called in time.
func Isolate(before ...func()) {
	if os.Getenv(isolated) != "" || os.Geteuid() != 0 {
		return
	}
	for _, f := range before {
		f()
	}
	runtime.LockOSThread() // execve keeps the namespaces of the thread that calls it
	err := syscall.Unshare(syscall.CLONE_NEWNET)
	if err == nil {
		err = loopbackUp()
	}
	if err == nil {
		os.Setenv(isolated, "1")
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "move the tests to a network namespace of their own:", err)
	os.Exit(1)
}

// loopbackUp is `ip link set lo up`; see netdevice(7).
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer syscall.Close(fd)
	var request struct { // ifreq
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return os.NewSyscallError("ioctl(SIOCSIFFLAGS)", errno)
	}
	return nil
}
