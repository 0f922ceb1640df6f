package gate

import (
	"os"

	"golang.org/x/sys/unix"
)

// native is what filters see as the architecture of this program's own calls.
const native = unix.AUDIT_ARCH_X86_64

// X32 marks a call as one of the x32 ABI.
const X32 = 0x40000000

// Last is the highest number of a call that the table of Linux 6.18 has.
const Last = 470

// unfiltered are the numbers of uretprobe and uprobe.
var unfiltered = []uint32{335, 336}

// takeAway has a process that stopped before a call make none, and see ours as its
// error: the number -1 is that of no call (Documentation/userspace-api/seccomp_filter.rst).
func takeAway(pid int) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &r); err != nil {
		return os.NewSyscallError("ptrace(PTRACE_GETREGS)", err)
	}
	r.Orig_rax, r.Rax = ^uint64(0), ^uint64(ours-1) // the latter is -ours
	return os.NewSyscallError("ptrace(PTRACE_SETREGS)", unix.PtraceSetRegs(pid, &r))
}
