package fileserver

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
)

// What the Go runtime needs: memory, threads, signals, clocks, and the poller
// that it sets up for timers.
var runtimeCalls = []string{
	"arch_prctl", "clock_gettime", "clock_nanosleep", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "exit", "exit_group",
	"fcntl", "futex", "getpid", "getrandom", "gettid", "madvise", "mmap", "mprotect", "munmap", "nanosleep", "prlimit64", "restart_syscall",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "sigaltstack", "tgkill", "uname",
}

// What serving a volume needs. Of the ways to open a file there is only
// openat2(2); there is no open_by_handle_at(2), no mount call, no socket, no
// ioctl, no ptrace, no change of user.
var volumeCalls = []string{
	"close", "copy_file_range", "fallocate", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fdatasync", "fgetxattr", "flistxattr",
	"fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "getdents64", "linkat", "lseek", "mkdirat", "openat2", "pread64",
	"pwritev2", "read", "readlinkat", "renameat2", "statx", "symlinkat", "umask", "unlinkat", "utimensat", "write",
}

// goThread are the flags of clone(2) for a thread of the Go runtime, which adds
// CLONE_SETTLS on some architectures; no process can be made.
const goThread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD

// filter is the allow-list of the helper: everything else fails with EPERM.
func filter() (seccomp.Filter, error) {
	allow := func(names []string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: args}
	}
	refused, missing := uint(unix.EPERM), uint(unix.ENOSYS)
	s := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &refused,
		Syscalls: []specs.LinuxSyscall{
			allow(runtimeCalls),
			allow(volumeCalls),
			allow([]string{"clone"}, specs.LinuxSeccompArg{Index: 0, Value: ^uint64(unix.CLONE_SETTLS), ValueTwo: goThread, Op: specs.OpMaskedEqual}),
			{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &missing},
			// Only of a descriptor, as the launch program does it. Afterwards there is
			// nothing to execute: the volume is mounted noexec.
			allow([]string{"execveat"}, specs.LinuxSeccompArg{Index: 4, Value: unix.AT_EMPTY_PATH, Op: specs.OpEqualTo}),
			allow([]string{"mknodat"}, kindIs(unix.S_IFREG)),
			allow([]string{"mknodat"}, kindIs(unix.S_IFIFO)),
			allow([]string{"mknodat"}, kindIs(unix.S_IFSOCK)),
		},
	}
	f, err := seccomp.Compile(s)
	if err != nil {
		return f, fmt.Errorf("seccomp filter of the file server: %w", err)
	}
	return f, nil
}

// kindIs compares the type of a file to make.
func kindIs(kind uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: 2, Value: unix.S_IFMT, ValueTwo: kind, Op: specs.OpMaskedEqual}
}
