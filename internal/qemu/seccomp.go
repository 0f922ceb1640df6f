package qemu

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
)

// calls are the system calls that QEMU needs with the devices of Command, seen
// in traces, and their other forms, which another C library may choose. Missing
// on purpose: everything that makes a socket, a process, a namespace or a mount;
// ptrace, process_vm_*, pidfd_*, keyctl, bpf, perf_event_open, userfaultfd; and
// io_uring, which QEMU would use for its event loop but can do without.
var calls = []string{
	// memory
	"brk", "madvise", "membarrier", "memfd_create", "mmap", "mprotect", "mremap", "msync", "munmap",
	"get_mempolicy", "set_mempolicy",
	// files: the root is read-only, so what is written are descriptors
	"access", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64",
	"fallocate", "fcntl", "fdatasync", "fstat", "fstatfs", "fsync", "ftruncate", "getcwd", "getdents64", "lseek", "lstat",
	"newfstatat", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readlink",
	"readlinkat", "readv", "stat", "statfs", "statx", "sync_file_range", "umask", "write", "writev",
	// events, and the sockets that it was given
	"epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "pipe2", "poll",
	"ppoll", "pselect6", "select", "signalfd4", "getpeername", "getsockname", "getsockopt", "recvfrom", "recvmsg", "sendmsg",
	"sendto", "setsockopt", "shutdown",
	// threads, signals, time
	"arch_prctl", "exit", "exit_group", "futex", "futex_waitv", "get_robust_list", "getcpu", "gettid", "restart_syscall",
	"rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
	"sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address", "sigaltstack", "tgkill", "tkill",
	"clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep", "timer_create", "timer_delete",
	"timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime", "times",
	// itself
	"capget", "getegid", "geteuid", "getgid", "getgroups", "getpid", "getppid", "getpriority", "getrandom", "getresgid",
	"getresuid", "getrlimit", "getrusage", "getuid", "sysinfo", "uname",
	"seccomp", // a further filter only: its own sandbox
	"execve",  // the start itself comes after the filter; QEMU's sandbox then forbids it
}

// prctls are the operations of prctl(2) that it needs.
var prctls = []uint64{
	unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_TIMERSLACK, unix.PR_MCE_KILL, unix.PR_SET_NO_NEW_PRIVS,
	unix.PR_GET_NO_NEW_PRIVS, unix.PR_SET_SECCOMP, unix.PR_GET_SECCOMP, unix.PR_SET_VMA,
}

const (
	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
		unix.CLONE_NEWPID | unix.CLONE_NEWNET
	kvmIoctls = 0xae00 // KVMIO, the type byte of every request in linux/kvm.h
)

// tapIoctls are what QEMU asks of a tap device that it was given, seen in traces,
// and the byte orders of virtio. Missing on purpose: to attach the descriptor to
// another device, to name, filter, or keep it.
var tapIoctls = []uint64{
	unix.TUNGETIFF, unix.TUNGETVNETHDRSZ, unix.TUNSETVNETHDRSZ, unix.TUNSETOFFLOAD, unix.TUNSETSNDBUF, unix.TUNSETVNETLE, unix.TUNSETVNETBE,
}

// profile is the filter in the words of the runtime specification: what is not
// listed fails with EPERM. Where the supervisor opens files for QEMU (see
// opener), its own calls that open one to write are handed over.
func profile(c *Config) *specs.LinuxSeccomp {
	eperm, enosys := uint(unix.EPERM), uint(unix.ENOSYS)
	allow := func(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args}
	}
	equal := func(index uint, n uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: n, Op: specs.OpEqualTo}
	}
	masked := func(index uint, mask, n uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: mask, ValueTwo: n, Op: specs.OpMaskedEqual}
	}
	s := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: &eperm,
		Syscalls: []specs.LinuxSyscall{
			{Names: calls, Action: specs.ActAllow},
			// Threads only. clone3 hides its flags in memory; the C library then
			// takes clone.
			allow("clone", masked(0, unix.CLONE_THREAD|newNamespaces, unix.CLONE_THREAD)),
			{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &enosys},
			allow("prlimit64", equal(2, 0)), // reading
			allow("ioctl", equal(1, unix.TCGETS)),
			allow("ioctl", equal(1, unix.TIOCGWINSZ)),
			allow("ioctl", equal(1, 0x5421)), // FIONBIO
		},
	}
	for _, op := range prctls {
		s.Syscalls = append(s.Syscalls, allow("prctl", equal(0, op)))
	}
	if c.RAM == nil {
		s.Syscalls = append(s.Syscalls, allow("open"), allow("openat"))
	} else {
		// Not "open", which the C library does not use.
		s.Syscalls = append(s.Syscalls, allow("openat", masked(2, unix.O_ACCMODE, unix.O_RDONLY)),
			specs.LinuxSyscall{Names: []string{"openat"}, Action: specs.ActNotify, Args: []specs.LinuxSeccompArg{masked(2, unix.O_ACCMODE, unix.O_RDWR)}})
	}
	if c.Accel == KVM {
		s.Syscalls = append(s.Syscalls, allow("ioctl", masked(1, 0xff00, kvmIoctls)))
	}
	if c.taps() {
		for _, request := range tapIoctls {
			s.Syscalls = append(s.Syscalls, allow("ioctl", equal(1, request)))
		}
	}
	return s
}

func filter(c *Config) (seccomp.Filter, error) { return seccomp.Compile(profile(c)) }
