// Command taker stands in QEMU's place, as if somebody had taken QEMU over, and
// tries to write to the memory that all clones begin with. It says on standard
// error what came of each attempt.
package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	memory = "/ram"
	page   = 4096
)

func main() {
	fd, err := syscall.Open(memory, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	say("open", err)
	if err != nil {
		return
	}
	b := make([]byte, 4)
	_, err = syscall.Pread(fd, b, 0)
	say("read "+string(b), err)
	_, err = syscall.Pwrite(fd, []byte("evil"), 0)
	say("write", err)
	say("truncate", syscall.Ftruncate(fd, 0))
	say("punch", syscall.Fallocate(fd, 3, 0, page))
	_, err = syscall.Mmap(fd, 0, page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	say("map shared", err)
	m, err := syscall.Mmap(fd, 0, page, syscall.PROT_READ, syscall.MAP_SHARED)
	say("map to read", err)
	if err == nil {
		say("make writable", syscall.Mprotect(m, syscall.PROT_READ|syscall.PROT_WRITE))
	}
	m, err = syscall.Mmap(fd, 0, page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE)
	say("map privately", err)
	if err == nil {
		copy(m, "evil") // its own
	}
	_, _, errno := syscall.Syscall(syscall.SYS_FCHMOD, uintptr(fd), 0o666, 0)
	say("chmod", errnoError(errno))
	for _, name := range []string{"/proc/self/fd/3", fmt.Sprintf("/proc/self/fd/%d", fd), "/dev/kvm", "/kernel", "/qemu", "ram"} {
		for _, how := range []int{syscall.O_RDWR, syscall.O_WRONLY} {
			if _, err = syscall.Open(name, how, 0); err != syscall.EPERM {
				say(fmt.Sprintf("open %s %d", name, how), err)
			}
		}
	}
	// openat2 and open are other ways to ask.
	how := [3]uint64{syscall.O_RDWR}
	path := []byte(memory + "\x00")
	_, _, errno = syscall.Syscall6(437, ^uintptr(99), uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(&how)), 24, 0, 0)
	say("openat2", errnoError(errno))
	_, _, errno = syscall.Syscall(syscall.SYS_OPEN, uintptr(unsafe.Pointer(&path[0])), syscall.O_RDWR, 0)
	say("open(2)", errnoError(errno))
	os.Exit(3)
}

func errnoError(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func say(what string, err error) {
	if err != nil {
		what += ": " + err.Error()
	}
	fmt.Fprintln(os.Stderr, what)
}
