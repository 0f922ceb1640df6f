// Package gate finds out which system calls the seccomp filters of this process
// let pass, without making one of them.
//
// A child installs a filter of its own, on top of those that it has, and then
// makes the calls. Of all filters' verdicts the kernel takes the one that comes
// first in this order (seccomp(2)):
//
//	kill > trap > errno > user notification > trace > log > allow
//	      ────── outer ──────        ▲          ▲    ──── outer ────
//	                          second pass   first and third
//
// The first pass's filter says "trace" to every call. Without a tracer the call is
// not made and fails with ENOSYS. So a call that an outer filter refuses shows that
// filter's error, and one that passes shows ENOSYS.
//
// An outer filter may say ENOSYS itself: Docker's does so to clone3. The second
// pass tells: its filter hands the calls to this process, which answers with an
// error number that nobody else uses. Some kernels do not have this, gVisor's among
// them, and a process has one such filter at most. Then there is a third pass: this
// process traces the child, which stops at each call that passes, and takes the call
// away. Where that cannot be either, it stays unknown.
//
// The gate is the filter's alone. What capabilities, security modules or the call
// itself would say is not asked.
package gate

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

// Call is a system call as a filter sees it.
type Call struct {
	// Number is that of the architecture, with bit 30 for x32.
	Number uint32
	Args   [6]uint64
	// I386 enters the kernel as 32-bit programs of x86 do; Number is of that
	// architecture then.
	I386 bool
}

// Verdict is what becomes of a call at the gate.
type Verdict int

// The verdicts.
const (
	Unknown Verdict = iota
	Passes
	Refused // with Result.Errno; 0 where a filter pretends success
	Kills   // the calling process
)

// Result is a Verdict with what it needs.
type Result struct {
	Verdict Verdict
	Errno   syscall.Errno
	Reason  string // why Unknown
}

// Unseen is the reason of calls that are not tried.
const Unseen = "the kernel shows this call to no filter"

// NoI386 is the reason of calls of 32-bit programs where the kernel takes none.
const NoI386 = "the kernel takes no calls of 32-bit programs"

// ErrNoGate tells that no filter of ours can be put in force here.
var ErrNoGate = errors.New("a seccomp filter cannot be installed")

// ours is an error number that the kernel never returns: its last one is 4095, and
// the next below it that is used is 531.
const ours = syscall.Errno(4000)

// Try returns what becomes of each call. No call is made.
func Try(calls []Call) ([]Result, error) {
	var seen []Call
	for _, c := range calls {
		if !unseen(c) {
			seen = append(seen, c)
		}
	}
	found, err := try(seen)
	if err != nil {
		return nil, err
	}
	results := make([]Result, len(calls))
	for n, c := range calls {
		if unseen(c) {
			results[n] = Result{Reason: Unseen}
			continue
		}
		results[n], found = found[0], found[1:]
	}
	return results, nil
}

// unseen tells calls that the kernel makes whatever filters say: uretprobe(2) and
// uprobe(2), since Linux 6.14. They must not be tried.
func unseen(c Call) bool { return !c.I386 && slices.Contains(unfiltered, c.Number) }

func try(calls []Call) ([]Result, error) {
	results, err := pass(calls, firstPass)
	if err != nil {
		return nil, err
	}
	var doubtful []int
	var again []Call
	for n, r := range results {
		if r.Verdict == Refused && r.Errno == unix.ENOSYS {
			doubtful, again = append(doubtful, n), append(again, calls[n])
		}
	}
	told, err := pass(again, secondPass)
	if err != nil {
		var traced error
		if told, traced = pass(again, thirdPass); traced == nil {
			err = nil
		} else {
			err = errors.Join(err, traced)
		}
	}
	for n, at := range doubtful {
		switch {
		case err != nil:
			results[at] = Result{Reason: fmt.Sprintf("ENOSYS may be the filter's or mean that the call passes: %v", err)}
		case told[n].Verdict == Refused && told[n].Errno == ours:
			results[at] = Result{Verdict: Passes}
		default:
			results[at] = told[n]
		}
	}
	return results, nil
}

// pass tries the calls in as many children as it takes: one more for each call
// that kills.
func pass(calls []Call, run func([]Call) ([]launch.Result, unix.WaitStatus, error)) ([]Result, error) {
	results := make([]Result, 0, len(calls))
	for len(results) < len(calls) {
		got, ws, err := run(calls[len(results):])
		if err != nil {
			return nil, err
		}
		for _, r := range got {
			if !r.Ended {
				break
			}
			results = append(results, Result{Verdict: Refused, Errno: r.Errno})
		}
		if len(results) == len(calls) {
			break
		}
		switch {
		case ws.Signaled() && ws.Signal() == unix.SIGSYS:
			results = append(results, Result{Verdict: Kills})
		case ws.Signaled() && ws.Signal() == unix.SIGSEGV && calls[len(results)].I386:
			results = append(results, Result{Reason: NoI386})
		default:
			results = append(results, Result{Reason: fmt.Sprintf("the process that tried it ended with status %#x", uint32(ws))})
		}
	}
	return results, nil
}

// trials are the calls as a Recording makes them, behind a prologue that puts a
// filter in force. The prologue's last call never fails without the filter: unless
// it does, with shut, nothing more is tried.
func trials(prologue []launch.Trial, shut syscall.Errno, calls []Call) []launch.Trial {
	out := slices.Clone(prologue)
	for n := range out {
		out[n].Must = true
	}
	out = append(out, launch.Trial{Call: unix.SYS_GETPPID, Must: true, Errno: shut})
	for _, c := range calls {
		t := launch.Trial{Call: launch.Call(c.Number), I386: c.I386}
		for i, a := range c.Args {
			t.Args[i] = uintptr(a)
		}
		out = append(out, t)
	}
	return out
}

// installed looks at the results of a prologue with names, and of the call behind
// it, and returns the others.
func installed(names []string, shut syscall.Errno, got []launch.Result) ([]launch.Result, error) {
	for n, name := range names {
		switch r := got[n]; {
		case !r.Ended:
			return nil, fmt.Errorf("%w: the process ended in %s", ErrNoGate, name)
		case r.Errno != 0:
			return nil, fmt.Errorf("%w: %s: %w", ErrNoGate, name, r.Errno)
		}
	}
	if r := got[len(names)]; !r.Ended || r.Errno != shut {
		return nil, fmt.Errorf("%w: one was, and getppid shows nothing of it", ErrNoGate)
	}
	return got[len(names)+1:], nil
}

// The offsets in struct seccomp_data of linux/seccomp.h.
const (
	offNumber = 0
	offArch   = 4
	offArg0   = 16 // its lower half
)

// program is a filter that says verdict to all but exit_group, with which a child
// ends, and writing to fd, unless it is negative.
func program(verdict uint32, fd int) []unix.SockFilter {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	return []unix.SockFilter{
		0: {Code: load, K: offArch},
		1: {Code: equal, K: native, Jt: 0, Jf: 5},
		2: {Code: load, K: offNumber},
		3: {Code: equal, K: unix.SYS_EXIT_GROUP, Jt: 4, Jf: 0},
		4: {Code: equal, K: unix.SYS_WRITE, Jt: 0, Jf: 2},
		5: {Code: load, K: offArg0},
		6: {Code: equal, K: uint32(fd), Jt: 1, Jf: 0},
		7: {Code: ret, K: verdict},
		8: {Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
}
