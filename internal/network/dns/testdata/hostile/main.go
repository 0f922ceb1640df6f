// Command hostile stands where bulkhead-dns stands, and does what somebody would
// who took it over. Each line of its log is an attempt and what came of it.
package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/dial"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/resolve"
)

func say(what string, err error) {
	if err == nil {
		err = syscall.Errno(0)
	}
	var e syscall.Errno
	if !errors.As(err, &e) {
		fmt.Fprintf(os.Stderr, "%s %s: %v\n", os.Args[1], what, err)
		return
	}
	fmt.Fprintf(os.Stderr, "%s %s: %d\n", os.Args[1], what, int(e))
}

// raw makes a system call with arguments that package unix would not let through.
func raw(what string, nr uintptr, args ...uintptr) {
	var a [6]uintptr
	copy(a[:], args)
	_, _, e := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	say(what, e)
}

func socket(what string, family, kind, protocol int) {
	_, err := unix.Socket(family, kind, protocol)
	say("socket "+what, err)
}

func main() {
	everybody()
	if os.Args[1] == "dial" {
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		say("socket inet", err)
		_, err = unix.Open("/", unix.O_RDONLY, 0)
		say("open", err)
		_, err = unix.Open("/10.77.128.2", dial.OpenFlags, 0)
		say("read a lease", err)
		_, err = unix.Open("/10.77.128.2", unix.O_RDWR|unix.O_CLOEXEC, 0)
		say("write to a lease", err)
		_, err = unix.Open("/etc/passwd", dial.OpenFlags, 0)
		say("read another file", err)
		raw("sendto", unix.SYS_SENDTO, 0)
		// From here on it does what it should.
		dial.Serve(resolve.FDControl, []netip.AddrPort{netip.MustParseAddrPort(os.Args[len(os.Args)-1])}, "/") //nolint:errcheck // the test ends it
		return
	}
	socket("inet", unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	files()
	sockets()
	os.NewFile(resolve.FDControl, "").Write([]byte{1})
	select {}
}

// everybody is what neither process may do.
func everybody() {
	socket("unix", unix.AF_UNIX, unix.SOCK_STREAM, 0)
	socket("netlink", unix.AF_NETLINK, unix.SOCK_RAW, 0)
	socket("packet", unix.AF_PACKET, unix.SOCK_RAW, 0)
	socket("raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	raw("bind", unix.SYS_BIND, 4)
	raw("listen", unix.SYS_LISTEN, 4)
	raw("setsockopt", unix.SYS_SETSOCKOPT, 4)
	raw("dup", unix.SYS_DUP, 4)
	raw("dup3", unix.SYS_DUP3, 4, 5, 0)
	raw("dupfd", unix.SYS_FCNTL, 4, unix.F_DUPFD, 0)
	raw("sendmmsg", unix.SYS_SENDMMSG, 4)
	raw("io_uring", unix.SYS_IO_URING_SETUP, 1)
	raw("kill", unix.SYS_KILL, 1, 0)
	raw("ptrace", unix.SYS_PTRACE)
	raw("unshare", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	raw("setns", unix.SYS_SETNS, 4, 0)
	raw("mount", unix.SYS_MOUNT)
	raw("open_tree", unix.SYS_OPEN_TREE)
	raw("setuid", unix.SYS_SETUID, 0)
	raw("prctl", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)
	raw("process", unix.SYS_CLONE, uintptr(unix.SIGCHLD))
	raw("execve", unix.SYS_EXECVE)
	raw("bpf", unix.SYS_BPF)
	raw("pidfd_open", unix.SYS_PIDFD_OPEN, 1)
	raw("splice", unix.SYS_SPLICE)
}

// files is all that a resolver could do with files.
func files() {
	for _, path := range []string{"/etc/passwd", "/proc/self/status", "/sys", "/dev/null", "/run"} {
		_, err := unix.Open(path, unix.O_RDONLY, 0)
		say("open "+path, err)
	}
	_, err := unix.Open("/10.77.1.1", unix.O_WRONLY|unix.O_CREAT, 0o644)
	say("make a lease", err)
	_, err = unix.Open("/10.77.128.2", unix.O_RDWR, 0)
	say("write to a lease", err)
	_, err = unix.Open("/10.77.128.2", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	say("read a lease", err)
	raw("remove", unix.SYS_UNLINKAT)
	log := os.NewFile(resolve.FDLog, "")
	_, err = log.Seek(0, 0)
	say("go back in the log", err)
}

// sockets is all that a resolver could do with those that it gets.
func sockets() {
	c, err := dial.NewClient(resolve.FDDialer)
	if err != nil {
		say("dialer", err)
		return
	}
	f, err := c.Dial(netip.Addr{}, 0, false)
	say("dial", err)
	if err == nil {
		fd := f.Fd()
		_, err = f.Write([]byte("hello"))
		say("write to upstream", err)
		to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: 0x3500, Addr: [4]byte{127, 0, 0, 9}}
		at := uintptr(unsafe.Pointer(&to))
		b := []byte("hello")
		data := uintptr(unsafe.Pointer(&b[0]))
		raw("sendto by upstream's", unix.SYS_SENDTO, fd, data, 5, 0, at, 16)
		raw("sendto by a number with more bits", unix.SYS_SENDTO, fd|4<<32, data, 5, 0, at, 16)
		raw("connect", unix.SYS_CONNECT, fd, at, 16)
		raw("sendmsg", unix.SYS_SENDMSG, fd)
		raw("close", unix.SYS_CLOSE, 4)
		raw("close with more bits", unix.SYS_CLOSE, 4|1<<32)
		raw("close the last", unix.SYS_CLOSE, resolve.FDOwn-1)
		say("close upstream's", f.Close())
	}
	_, err = c.Dial(netip.Addr{}, 1, true)
	say("dial another", err)
	_, err = c.Dial(netip.Addr{}, 77, false)
	say("dial 77", err)
	for what, of := range map[string]string{"a workload's": "10.77.200.1", "of a workload without": "10.77.128.2", "of nobody": "10.77.99.99"} {
		_, err = c.Dial(netip.MustParseAddr(of), 0, false)
		say("dial "+what, err)
	}
	_, err = c.Dial(netip.MustParseAddr("10.77.200.1"), 1, false)
	say("dial a workload's second", err)
}
