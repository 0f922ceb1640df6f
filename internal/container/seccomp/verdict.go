package seccomp

import (
	"fmt"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A Verdict is what a filter returns for a call: an action in the upper half,
// its data (an error number, a tracer's message) in the lower. seccomp(2).
type Verdict uint32

// Actions, linux/seccomp.h.
const (
	KillProcess Verdict = 0x80000000
	KillThread  Verdict = 0x00000000
	Trap        Verdict = 0x00030000
	Errno       Verdict = 0x00050000
	Notify      Verdict = 0x7fc00000
	Trace       Verdict = 0x7ff00000
	Log         Verdict = 0x7ffc0000
	Allow       Verdict = 0x7fff0000
)

const (
	dataMask = 0x0000ffff
	// maxErrno is the kernel's MAX_ERRNO: it turns larger values into this one.
	maxErrno = 4095
)

// Action returns the verdict without its data.
func (v Verdict) Action() Verdict { return v &^ dataMask }

// Errno returns the error number of an Errno verdict.
func (v Verdict) Errno() syscall.Errno { return syscall.Errno(v & dataMask) }

// String returns the verdict in words: "errno 1", "allow", "kill process".
func (v Verdict) String() string {
	switch v.Action() {
	case KillProcess:
		return "kill process"
	case KillThread:
		return "kill thread"
	case Trap:
		return "trap"
	case Errno:
		return fmt.Sprintf("errno %d", uint32(v&dataMask))
	case Notify:
		return "notify"
	case Trace:
		return fmt.Sprintf("trace %d", uint32(v&dataMask))
	case Log:
		return "log"
	case Allow:
		return "allow"
	}
	return fmt.Sprintf("action %#x", uint32(v))
}

// permits tells whether the call runs without anyone else being asked.
func (v Verdict) permits() bool { return v.Action() == Allow || v.Action() == Log }

// verdict translates an action of the runtime spec. Without errnoRet, ERRNO
// and TRACE carry EPERM, as every runtime has it. The spec demands an error if
// an action that takes no error number is given one.
func verdict(action specs.LinuxSeccompAction, errnoRet *uint) (Verdict, error) {
	data := Verdict(syscall.EPERM)
	if errnoRet != nil {
		switch {
		case action != specs.ActErrno && action != specs.ActTrace:
			return 0, fmt.Errorf("seccomp: action %q takes no errnoRet, got %d", action, *errnoRet)
		case action == specs.ActErrno && *errnoRet > maxErrno:
			return 0, fmt.Errorf("seccomp: errnoRet %d is above %d", *errnoRet, maxErrno)
		case *errnoRet > dataMask:
			return 0, fmt.Errorf("seccomp: errnoRet %d is above %d", *errnoRet, dataMask)
		}
		data = Verdict(*errnoRet)
	}
	switch action {
	case specs.ActKill, specs.ActKillThread:
		return KillThread, nil
	case specs.ActKillProcess:
		return KillProcess, nil
	case specs.ActTrap:
		return Trap, nil
	case specs.ActErrno:
		return Errno | data, nil
	case specs.ActTrace:
		return Trace | data, nil
	case specs.ActAllow:
		return Allow, nil
	case specs.ActLog:
		return Log, nil
	case specs.ActNotify:
		return Notify, nil
	}
	return 0, fmt.Errorf("seccomp: unknown action %q", string(action))
}
