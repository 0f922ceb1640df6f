//go:build amd64

package qemu

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
)

// TestFilter interprets the filter: what a QEMU that is taken over may do, and
// what it may not.
func TestFilter(t *testing.T) {
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM |
		unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID
	allowed, eperm, enosys := seccomp.Allow, seccomp.Errno|1, seccomp.Errno|38
	for _, tt := range []struct {
		name     string
		nr       uint32
		args     [6]uint64
		tcg, kvm seccomp.Verdict
	}{
		{"read", unix.SYS_READ, [6]uint64{}, allowed, allowed},
		{"a thread", unix.SYS_CLONE, [6]uint64{thread}, allowed, allowed},
		{"a process", unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}, eperm, eperm},
		{"a thread in a user namespace", unix.SYS_CLONE, [6]uint64{thread | unix.CLONE_NEWUSER}, eperm, eperm},
		{"clone3", unix.SYS_CLONE3, [6]uint64{}, enosys, enosys},
		{"fork", unix.SYS_FORK, [6]uint64{}, eperm, eperm},
		{"vfork", unix.SYS_VFORK, [6]uint64{}, eperm, eperm},
		{"execveat", unix.SYS_EXECVEAT, [6]uint64{}, eperm, eperm},
		{"unshare", unix.SYS_UNSHARE, [6]uint64{unix.CLONE_NEWUSER}, eperm, eperm},
		{"setns", unix.SYS_SETNS, [6]uint64{}, eperm, eperm},
		{"mount", unix.SYS_MOUNT, [6]uint64{}, eperm, eperm},
		{"fsopen", unix.SYS_FSOPEN, [6]uint64{}, eperm, eperm},
		{"socket", unix.SYS_SOCKET, [6]uint64{unix.AF_UNIX}, eperm, eperm},
		{"connect", unix.SYS_CONNECT, [6]uint64{}, eperm, eperm},
		{"bind", unix.SYS_BIND, [6]uint64{}, eperm, eperm},
		{"ptrace", unix.SYS_PTRACE, [6]uint64{}, eperm, eperm},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [6]uint64{}, eperm, eperm},
		{"kill", unix.SYS_KILL, [6]uint64{}, eperm, eperm},
		{"io_uring", unix.SYS_IO_URING_SETUP, [6]uint64{}, eperm, eperm},
		{"bpf", unix.SYS_BPF, [6]uint64{}, eperm, eperm},
		{"perf", unix.SYS_PERF_EVENT_OPEN, [6]uint64{}, eperm, eperm},
		{"userfaultfd", unix.SYS_USERFAULTFD, [6]uint64{}, eperm, eperm},
		{"keyctl", unix.SYS_KEYCTL, [6]uint64{}, eperm, eperm},
		{"setuid", unix.SYS_SETUID, [6]uint64{}, eperm, eperm},
		{"read a limit", unix.SYS_PRLIMIT64, [6]uint64{0, unix.RLIMIT_STACK, 0, 1}, allowed, allowed},
		{"set a limit", unix.SYS_PRLIMIT64, [6]uint64{0, unix.RLIMIT_CORE, 1, 0}, eperm, eperm},
		{"name a thread", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_NAME}, allowed, allowed},
		{"be dumpable", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_DUMPABLE, 1}, eperm, eperm},
		{"outlive the supervisor", unix.SYS_PRCTL, [6]uint64{unix.PR_SET_PDEATHSIG, 0}, eperm, eperm},
		{"type into a terminal", unix.SYS_IOCTL, [6]uint64{0, unix.TIOCSTI}, eperm, eperm},
		{"run a virtual processor", unix.SYS_IOCTL, [6]uint64{0, kvmRun}, eperm, allowed},
	} {
		for a, want := range map[Accel]seccomp.Verdict{TCG: tt.tcg, KVM: tt.kvm} {
			f, err := filter(&Config{Accel: a})
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Run(seccomp.Data{NR: tt.nr, Arch: unix.AUDIT_ARCH_X86_64, Args: tt.args})
			if err != nil || got != want {
				t.Errorf("%s, %s: %v, %v; want %v", tt.name, a, got, err, want)
			}
		}
	}
	// What a tap device needs is allowed where there is one, and no more.
	for request, want := range map[uint64]seccomp.Verdict{
		unix.TUNGETIFF: allowed, unix.TUNSETOFFLOAD: allowed, unix.TUNSETVNETHDRSZ: allowed,
		unix.TUNSETIFF: eperm, unix.TUNSETPERSIST: eperm, unix.TUNSETOWNER: eperm, unix.TUNSETLINK: eperm,
		unix.TUNATTACHFILTER: eperm, unix.TUNSETQUEUE: eperm, unix.SIOCSIFHWADDR: eperm, unix.TUNSETSTEERINGEBPF: eperm,
	} {
		for taps, want := range map[bool]seccomp.Verdict{true: want, false: eperm} {
			c := &Config{Accel: TCG}
			if taps {
				c.NICs = []NIC{{Kind: Slot}}
			}
			f, err := filter(c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Run(seccomp.Data{NR: unix.SYS_IOCTL, Arch: unix.AUDIT_ARCH_X86_64, Args: [6]uint64{3, request}})
			if err != nil || got != want {
				t.Errorf("request %#x, taps %v: %v, %v; want %v", request, taps, got, err, want)
			}
		}
	}
	f, err := filter(&Config{Accel: TCG})
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]seccomp.Data{
		"i386 read": {NR: 3, Arch: unix.AUDIT_ARCH_I386}, "x32 read": {NR: 1 << 30, Arch: unix.AUDIT_ARCH_X86_64},
	} {
		if got, err := f.Run(d); err != nil || got == allowed {
			t.Errorf("%s: %v, %v; want it refused", name, got, err)
		}
	}
}
