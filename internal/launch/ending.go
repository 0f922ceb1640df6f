package launch

import "encoding/binary"

// endingHandlerAddr is where the handler of ending_*.s begins.
var endingHandlerAddr uint64

// Flags of struct sigaction (asm-generic/signal-defs.h). x86-64 refuses to
// deliver to a handler without a restorer, though this one never returns.
const (
	saRestorer = 0x04000000
	saOnStack  = 0x08000000
)

// EndingAction is a struct sigaction (rt_sigaction(2), the kernel's form) that
// makes a child end with status 128 plus the signal's number. The first process
// of a pid namespace needs it until it executes its program: signals from
// outside whose action is the default one pass it by (pid_namespaces(7)).
// execve(2) puts the default back.
//
// The handler runs on the alternate stack that the Go runtime gave the thread
// that forked, of which the child has a copy: a goroutine's stack may be smaller
// than the frame that the kernel pushes.
func EndingAction() []byte {
	b := make([]byte, 32)
	binary.NativeEndian.PutUint64(b, endingHandlerAddr)
	binary.NativeEndian.PutUint64(b[8:], saRestorer|saOnStack)
	binary.NativeEndian.PutUint64(b[16:], endingHandlerAddr)
	return b
}
