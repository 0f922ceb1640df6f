package dns

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/dial"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/resolve"
)

// What the Go runtime needs: memory, threads, signals, clocks, and its poller.
var runtimeCalls = []string{
	"arch_prctl", "clock_gettime", "clock_nanosleep", "close", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "exit", "exit_group",
	"futex", "getpid", "getrandom", "gettid", "madvise", "mmap", "mprotect", "munmap", "nanosleep", "prlimit64", "read", "restart_syscall",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "sigaltstack", "tgkill", "uname", "write",
}

// What reading leases and talking over sockets that exist needs. The resolver
// makes no socket, connects none, and sends no descriptor.
var resolverCalls = []string{
	"accept4", "fstat", "getdents64", "inotify_add_watch", "inotify_init1", "lseek", "newfstatat", "openat", "recvfrom", "recvmsg",
}

// goThread are the flags of clone(2) for a thread of the Go runtime, which adds
// CLONE_SETTLS on some architectures; no process can be made.
const goThread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD

func allow(names []string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: specs.ActAllow, Args: args}
}

func equal(index uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Value: value, Op: specs.OpEqualTo}
}

// among holds for the n numbers from first on; n is a power of two and divides
// first. All 64 bits count, of which the kernel drops 32.
func among(index uint, first, n uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Value: ^(n - 1), ValueTwo: first, Op: specs.OpMaskedEqual}
}

// common are the rules of both processes.
func common() []specs.LinuxSyscall {
	missing := uint(unix.ENOSYS)
	rules := []specs.LinuxSyscall{
		allow([]string{"clone"}, specs.LinuxSeccompArg{Index: 0, Value: ^uint64(unix.CLONE_SETTLS), ValueTwo: goThread, Op: specs.OpMaskedEqual}),
		{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &missing},
		// Only of a descriptor, as the launch program does it, of which there is none
		// afterwards.
		allow([]string{"execveat"}, specs.LinuxSeccompArg{Index: 4, Value: unix.AT_EMPTY_PATH, Op: specs.OpEqualTo}),
	}
	for _, op := range []uint64{unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD} { // no copy of a descriptor
		rules = append(rules, allow([]string{"fcntl"}, equal(1, op)))
	}
	return rules
}

// resolverFilter is the allow-list of the resolver. By a connected UDP socket
// anybody can be written to who can be named in sendto(2): so that call is for
// the bridge's own sockets, whose numbers nothing else can get.
func resolverFilter() (seccomp.Filter, error) {
	rules := append(common(), allow(resolverCalls), allow([]string{"sendto"}, among(0, resolve.FDUDP, resolve.MaxUDP)))
	for n := uint64(resolve.FDOwn); n < resolve.MaxFiles; n *= 2 {
		rules = append(rules, allow([]string{"close"}, among(0, n, n)))
	}
	var calls []string
	for _, name := range runtimeCalls {
		if name != "close" {
			calls = append(calls, name)
		}
	}
	return compile(append(rules, allow(calls)))
}

// dialerFilter is the allow-list of the dialer, which has no file to open but
// leases, if it reads those.
func dialerFilter(leases bool) (seccomp.Filter, error) {
	rules := append(common(), allow(runtimeCalls), allow([]string{"sendmsg"}, equal(0, resolve.FDControl)), allow([]string{"connect"}, among(0, 0, resolve.MaxFiles)))
	if leases {
		rules = append(rules, allow([]string{"openat"}, equal(2, dial.OpenFlags|unix.O_LARGEFILE)), allow([]string{"fstat"}))
	}
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
		for _, kind := range []uint64{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			rules = append(rules, allow([]string{"socket"}, equal(0, family), equal(1, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), equal(2, 0)))
		}
	}
	return compile(rules)
}

// compile makes a filter by which everything else fails with EPERM.
func compile(rules []specs.LinuxSyscall) (seccomp.Filter, error) {
	refused := uint(unix.EPERM)
	f, err := seccomp.Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &refused, Syscalls: rules})
	if err != nil {
		return f, fmt.Errorf("seccomp filter of the name server: %w", err)
	}
	return f, nil
}
