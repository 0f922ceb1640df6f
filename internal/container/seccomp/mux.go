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

// ipcFunctions are the functions of ipc(2) (linux/ipc.h).
var ipcFunctions = [...]struct {
	name   string
	number uint8
}{
	{"semop", 1}, {"semget", 2}, {"semctl", 3}, {"semtimedop", 4}, {"msgsnd", 11}, {"msgrcv", 12}, {"msgget", 13},
	{"msgctl", 14}, {"shmat", 21}, {"shmdt", 22}, {"shmget", 23}, {"shmctl", 24},
}

// A muxTable holds, for each index of the tables, the number of the function of
// a multiplexing call, plus ipcMark for those of ipc(2); 0 is none.
type muxTable [len(syscallEnds)]uint8

const ipcMark = 0x80

// muxes returns the table for an architecture, nil if it does not multiplex.
func (a *arch) muxes() *muxTable {
	if a.socketcall == 0 {
		return nil
	}
	var t muxTable
	for i, name := range socketFunctions {
		if index, ok := syscallIndex(name); ok {
			t[index] = uint8(i + 1)
		}
	}
	for _, f := range ipcFunctions {
		if index, ok := syscallIndex(f.name); ok {
			t[index] = f.number | ipcMark
		}
	}
	return &t
}

// has tells whether the call with this index can be reached in another way.
func (t *muxTable) has(index int) bool { return t != nil && t[index] != 0 }

// mux returns the rule that covers the multiplexed form of a call.
func (a *arch) mux(t *muxTable, index int, r rule) (uint32, rule, bool) {
	if !t.has(index) || (len(r.conds) > 0 && r.verdict.permits()) {
		return 0, rule{}, false
	}
	nr, function := a.socketcall, t[index]
	if function&ipcMark != 0 {
		nr, function = a.ipc, function&^ipcMark
	}
	conds := []cond{{arg: 0, op: opEQ, value: uint64(function), mask: ^uint64(0)}}
	for _, c := range r.conds {
		if c.arg != 0 {
			conds = append(conds, c)
		}
	}
	return nr, rule{verdict: r.verdict, conds: conds}, true
}
