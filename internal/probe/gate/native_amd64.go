package gate

import "golang.org/x/sys/unix"

// native is what filters see as the architecture of this program's own calls.
const native = unix.AUDIT_ARCH_X86_64

// X32 marks a call as one of the x32 ABI.
const X32 = 0x40000000

// Last is the highest number of a call that the table of Linux 6.18 has.
const Last = 470

// unfiltered are the numbers of uretprobe and uprobe.
var unfiltered = []uint32{335, 336}
