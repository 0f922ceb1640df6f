package seccomp

// Some 32-bit architectures reach sockets and System V IPC in two ways: by a
// call of their own (since Linux 4.3 and 5.1) and through socketcall(2) and
// ipc(2), whose first argument names the function and whose other arguments
// lie in memory, where no filter can see them. A profile speaks of "bind"; so,
// like libseccomp, a rule for bind covers socketcall(SYS_BIND) as well.
//
// One difference is deliberate. If a rule permits a call only for certain
// arguments, libseccomp permits the multiplexed form for all arguments, since
// it cannot check them: "socket for any family but AF_VSOCK" opens every
// family through socketcall. Here such a rule does not reach the multiplexed
// form. A profile that wants it says "socketcall".

// socketFunctions are the functions of socketcall(2) in the order of their
// numbers, from 1 (linux/net.h).
var socketFunctions = [...]string{
	"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
	"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
}

// ipcFunction returns the number of a function of ipc(2) (linux/ipc.h).
func ipcFunction(name string) (uint64, bool) {
	switch name {
	case "semop":
		return 1, true
	case "semget":
		return 2, true
	case "semctl":
		return 3, true
	case "semtimedop":
		return 4, true
	case "msgsnd":
		return 11, true
	case "msgrcv":
		return 12, true
	case "msgget":
		return 13, true
	case "msgctl":
		return 14, true
	case "shmat":
		return 21, true
	case "shmdt":
		return 22, true
	case "shmget":
		return 23, true
	case "shmctl":
		return 24, true
	}
	return 0, false
}

// muxTarget returns the multiplexing call and the function's number in it.
func (a *arch) muxTarget(index int) (nr uint32, function uint64, ok bool) {
	if a.socketcall == 0 {
		return 0, 0, false
	}
	name := syscallName(index)
	for i, f := range socketFunctions {
		if f == name {
			return a.socketcall, uint64(i + 1), true
		}
	}
	function, ok = ipcFunction(name)
	return a.ipc, function, ok
}

// muxes tells whether the call can be reached through a multiplexing call.
func (a *arch) muxes(index int) bool {
	_, _, ok := a.muxTarget(index)
	return ok
}

// mux returns the rule that covers the multiplexed form of a call.
func (a *arch) mux(index int, r rule, def Verdict) (uint32, rule, bool) {
	nr, function, ok := a.muxTarget(index)
	if !ok || (len(r.conds) > 0 && r.verdict.permits()) {
		return 0, rule{}, false
	}
	conds := []cond{{arg: 0, op: opEQ, value: function, mask: ^uint64(0)}}
	for _, c := range r.conds {
		if c.arg != 0 {
			conds = append(conds, c)
		}
	}
	return nr, rule{verdict: r.verdict, conds: conds}, true
}
