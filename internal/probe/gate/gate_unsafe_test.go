package gate

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"golang.org/x/sys/unix"
)

// outerVariable makes the test binary put the filter that it holds in force on
// all its threads, try calls, and print what it found.
const outerVariable = "BULKHEAD_TEST_GATE"

// rule is a verdict of the outer filter for a number, and an architecture unless
// it is 0.
type rule struct{ Number, Arch, Verdict uint32 }

// request is what the test asks of itself.
type request struct {
	Rules    []rule
	Listener bool // the outer filter has a listener
	Calls    []Call
}

// answerOf is what the process behind the filter found.
type answerOf struct {
	Results []Result
	Error   string
}

func TestMain(m *testing.M) {
	text := os.Getenv(outerVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var q request
	if err := json.Unmarshal([]byte(text), &q); err != nil {
		panic(err)
	}
	if err := outer(q); err != nil {
		fmt.Fprintln(os.Stderr, "install the outer filter:", err)
		os.Exit(1)
	}
	var a answerOf
	var err error
	if a.Results, err = Try(q.Calls); err != nil {
		a.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// outer puts the filter of a request in force.
func outer(q request) error {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	var p []unix.SockFilter
	for _, r := range q.Rules {
		if r.Arch != 0 {
			p = append(p, unix.SockFilter{Code: load, K: offArch}, unix.SockFilter{Code: equal, K: r.Arch, Jf: 3})
		}
		p = append(p, unix.SockFilter{Code: load, K: offNumber}, unix.SockFilter{Code: equal, K: r.Number, Jf: 1}, unix.SockFilter{Code: ret, K: r.Verdict})
	}
	p = append(p, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW})
	f := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_TSYNC)
	if q.Listener {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&f))); errno != 0 {
		return errno
	}
	return nil
}

// behind runs Try behind an outer filter.
func behind(t *testing.T, q request) answerOf {
	t.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), outerVariable+"="+string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the process behind the filter: %v: %s", err, out)
	}
	var a answerOf
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return a
}

func errno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// TestKnownFilters tries calls that would hurt if they were made, behind filters
// that say each verdict there is.
func TestKnownFilters(t *testing.T) {
	calls := []Call{
		{Number: unix.SYS_KEYCTL}, {Number: unix.SYS_CLONE3}, {Number: unix.SYS_REBOOT}, {Number: unix.SYS_MOUNT}, {Number: unix.SYS_VHANGUP},
		{Number: unix.SYS_SYNC}, {Number: unix.SYS_BPF}, {Number: unix.SYS_SETHOSTNAME}, {Number: unix.SYS_WRITE}, {Number: unix.SYS_EXECVE}, {Number: 4242},
	}
	a := behind(t, request{Calls: calls, Rules: []rule{
		{Number: unix.SYS_KEYCTL, Verdict: errno(unix.EPERM)},
		{Number: unix.SYS_CLONE3, Verdict: errno(unix.ENOSYS)},
		{Number: unix.SYS_REBOOT, Verdict: unix.SECCOMP_RET_KILL_PROCESS},
		{Number: unix.SYS_MOUNT, Verdict: unix.SECCOMP_RET_KILL_THREAD},
		{Number: unix.SYS_VHANGUP, Verdict: unix.SECCOMP_RET_TRAP},
		{Number: unix.SYS_SYNC, Verdict: unix.SECCOMP_RET_LOG},
		{Number: unix.SYS_BPF, Verdict: errno(0)},
		{Number: unix.SYS_SETHOSTNAME, Verdict: unix.SECCOMP_RET_TRACE},
	}})
	want := []Result{
		{Verdict: Refused, Errno: unix.EPERM}, {Verdict: Refused, Errno: unix.ENOSYS}, {Verdict: Kills}, {Verdict: Kills}, {Verdict: Kills},
		{Verdict: Passes}, {Verdict: Refused}, {Verdict: Passes}, {Verdict: Passes}, {Verdict: Passes}, {Verdict: Passes},
	}
	if diff := cmp.Diff(want, a.Results); diff != "" || a.Error != "" {
		t.Errorf("%s %s", diff, a.Error)
	}
}

// TestNoFilter lets the whole table pass, and makes none of it: a fork, an exec, a
// reboot would be noticed.
func TestNoFilter(t *testing.T) {
	var calls []Call
	for n := range uint32(Last + 1) {
		calls = append(calls, Call{Number: n})
	}
	results, err := Try(calls)
	if err != nil {
		t.Fatal(err)
	}
	for n, r := range results {
		if want := (Result{Verdict: Passes}); r != want && n != unix.SYS_EXIT_GROUP && !unseen(calls[n]) {
			t.Errorf("call %d: %+v", n, r)
		}
	}
}

// TestArguments tells calls apart by their arguments.
func TestArguments(t *testing.T) {
	results, err := Try([]Call{{Number: unix.SYS_WRITE, Args: [6]uint64{1, 0, 0}}, {Number: unix.SYS_SOCKET, Args: [6]uint64{38, 5, 0}}})
	if err != nil || results[0].Verdict != Passes || results[1].Verdict != Passes {
		t.Errorf("got %+v, %v", results, err)
	}
}

// TestOtherEntry: a filter that refuses a call of the native table alone says
// nothing about 32-bit programs.
func TestOtherEntry(t *testing.T) {
	if !launch.HasI386 {
		t.Skip("needs an amd64 machine")
	}
	keyctl := Call{Number: 288, I386: true} // arch/x86/entry/syscalls/syscall_32.tbl
	for _, tt := range []struct {
		name  string
		rules []rule
		want  Result
	}{
		{"native only", []rule{{unix.SYS_KEYCTL, native, errno(unix.EPERM)}}, Result{Verdict: Passes}},
		{"i386 too", []rule{{288, unix.AUDIT_ARCH_I386, errno(unix.EACCES)}}, Result{Verdict: Refused, Errno: unix.EACCES}},
		{"i386 ENOSYS", []rule{{288, unix.AUDIT_ARCH_I386, errno(unix.ENOSYS)}}, Result{Verdict: Refused, Errno: unix.ENOSYS}},
	} {
		a := behind(t, request{Rules: tt.rules, Calls: []Call{keyctl}})
		if len(a.Results) == 1 && a.Results[0].Reason == NoI386 {
			t.Skip("needs a machine that takes the system calls of i386")
		}
		if diff := cmp.Diff([]Result{tt.want}, a.Results); diff != "" || a.Error != "" {
			t.Errorf("%s: %s %s", tt.name, diff, a.Error)
		}
	}
}

// TestNoGate: where no filter can be installed, nothing is tried.
func TestNoGate(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule rule
		want string
	}{
		{"seccomp refused", rule{Number: unix.SYS_SECCOMP, Verdict: errno(unix.EPERM)}, "seccomp: operation not permitted"},
		{"seccomp answered", rule{Number: unix.SYS_SECCOMP, Verdict: errno(0)}, "getppid shows nothing"},
		{"seccomp kills", rule{Number: unix.SYS_SECCOMP, Verdict: unix.SECCOMP_RET_KILL_PROCESS}, "ended in seccomp"},
		{"prctl refused", rule{Number: unix.SYS_PRCTL, Verdict: errno(unix.EINVAL)}, "prctl(PR_SET_NO_NEW_PRIVS): invalid"},
	} {
		a := behind(t, request{Rules: []rule{tt.rule}, Calls: []Call{{Number: unix.SYS_REBOOT}}})
		if a.Results != nil || !strings.Contains(a.Error, tt.want) || !strings.Contains(a.Error, ErrNoGate.Error()) {
			t.Errorf("%s: got %+v, want an error with %q", tt.name, a, tt.want)
		}
	}
}

// TestOuterListener: with another's listener there is no second pass. The third
// tells the same, of calls that a filter answers with ENOSYS, kills for, or lets
// pass: none of these is made.
func TestOuterListener(t *testing.T) {
	calls := []Call{
		{Number: unix.SYS_KEYCTL}, {Number: unix.SYS_CLONE3}, {Number: unix.SYS_REBOOT}, {Number: unix.SYS_VHANGUP}, {Number: unix.SYS_BPF},
		{Number: unix.SYS_EXECVE}, {Number: unix.SYS_WRITE, Args: [6]uint64{1}}, {Number: unix.SYS_EXIT}, {Number: 4242},
	}
	a := behind(t, request{Listener: true, Calls: calls, Rules: []rule{
		{Number: unix.SYS_KEYCTL, Verdict: errno(unix.EPERM)},
		{Number: unix.SYS_CLONE3, Verdict: errno(unix.ENOSYS)},
		{Number: unix.SYS_REBOOT, Verdict: unix.SECCOMP_RET_KILL_PROCESS},
		{Number: unix.SYS_VHANGUP, Verdict: unix.SECCOMP_RET_TRAP},
	}})
	want := []Result{
		{Verdict: Refused, Errno: unix.EPERM}, {Verdict: Refused, Errno: unix.ENOSYS}, {Verdict: Kills}, {Verdict: Kills}, {Verdict: Passes},
		{Verdict: Passes}, {Verdict: Passes}, {Verdict: Passes}, {Verdict: Passes},
	}
	if diff := cmp.Diff(want, a.Results); diff != "" || a.Error != "" {
		t.Errorf("%s %s", diff, a.Error)
	}
}

// TestNoTracer: without a listener and a tracer, what the first pass shows is known,
// and the rest stays unknown.
func TestNoTracer(t *testing.T) {
	a := behind(t, request{Listener: true, Calls: []Call{{Number: unix.SYS_KEYCTL}, {Number: unix.SYS_BPF}}, Rules: []rule{
		{Number: unix.SYS_KEYCTL, Verdict: errno(unix.EPERM)}, {Number: unix.SYS_PTRACE, Verdict: errno(unix.EPERM)},
	}})
	if len(a.Results) != 2 || a.Results[0] != (Result{Verdict: Refused, Errno: unix.EPERM}) || a.Results[1].Verdict != Unknown ||
		!strings.Contains(a.Results[1].Reason, "busy") || !strings.Contains(a.Results[1].Reason, "PTRACE_SEIZE") {
		t.Errorf("got %+v", a)
	}
}

// TestDescriptors finds as many after a try as before.
func TestDescriptors(t *testing.T) {
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if _, err := Try(nil); err != nil {
		t.Fatal(err)
	}
	before := count()
	for range 3 {
		if _, err := Try([]Call{{Number: unix.SYS_BPF}}); err != nil && !errors.Is(err, ErrNoGate) {
			t.Fatal(err)
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
