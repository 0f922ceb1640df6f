package seccomp

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary act as the process under a filter.
const childEnv = "BULKHEAD_TEST_SECCOMP_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A probe is one system call that the child makes under the filter.
type probe struct {
	name string
	nr   uintptr
	args [3]uintptr
	// want is the errno under the default profile; the kernel is never to see
	// those that are denied.
	want unix.Errno
}

var probes = []probe{
	{"getpid", unix.SYS_GETPID, [3]uintptr{}, 0},
	{"keyctl", unix.SYS_KEYCTL, [3]uintptr{11, 12, 13}, unix.EPERM},
	{"unshare", unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWUTS}, unix.EPERM},
	{"clone3", unix.SYS_CLONE3, [3]uintptr{0, 0}, unix.ENOSYS},
	{"personality allowed", unix.SYS_PERSONALITY, [3]uintptr{0xffffffff}, 0},
	{"personality", unix.SYS_PERSONALITY, [3]uintptr{0x1234}, unix.EPERM},
	{"socket unix", unix.SYS_SOCKET, [3]uintptr{unix.AF_UNIX, unix.SOCK_STREAM}, 0},
	{"socket alg", unix.SYS_SOCKET, [3]uintptr{unix.AF_ALG, unix.SOCK_SEQPACKET}, unix.EPERM},
	{"socket vsock", unix.SYS_SOCKET, [3]uintptr{unix.AF_VSOCK, unix.SOCK_STREAM}, unix.EPERM},
	{"socket vsock, upper half set", unix.SYS_SOCKET, [3]uintptr{1<<32 | unix.AF_VSOCK, unix.SOCK_STREAM}, unix.EPERM},
	{"newer than the profile", 4000, [3]uintptr{}, unix.ENOSYS},
}

// child reads "FLAGS REPEAT PROGRAM" from standard input, installs the program
// on its thread, prints the descriptor of the listener, waits for a line ("close"
// makes it close the descriptor), makes the probes, and prints the errno of
// each.
func child() error {
	runtime.LockOSThread()
	in := bufio.NewReader(os.Stdin)
	var flags, repeat int
	var text string
	if _, err := fmt.Fscanln(in, &flags, &repeat, &text); err != nil {
		return err
	}
	program, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0]))}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("install a filter of %d instructions with flags %#x: %w", fprog.Len, flags, errno)
	}
	fmt.Println(fd)
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if line == "close\n" {
		if err := unix.Close(int(fd)); err != nil {
			return err
		}
	}
	for range repeat {
		for _, p := range probes {
			_, _, errno := unix.RawSyscall(p.nr, p.args[0], p.args[1], p.args[2])
			fmt.Println(int(errno))
		}
	}
	return nil
}
