package probe

import (
	"github.com/seed-f5e3b97b/bulkhead/internal/probe/gate"
	"golang.org/x/sys/unix"
)

// Calls that only x86 has.
var (
	i386Keyctl  = []gateCall{{"keyctl, by int $0x80", gate.Call{Number: 288, I386: true}}}
	i386Sockets = []gateCall{{"socketcall(SYS_SOCKET), by int $0x80", gate.Call{Number: 102, Args: [6]uint64{1}, I386: true}}}
	x32Keyctl   = []gateCall{{"keyctl, of x32", gate.Call{Number: gate.X32 | unix.SYS_KEYCTL}}}
	ioPorts     = calls(named{"iopl", unix.SYS_IOPL}, named{"ioperm", unix.SYS_IOPERM})
)
