// Package launchtest compares what a launch program says with what a tracer of
// system calls saw: all calls of every actor, in order, with the arguments that
// are known, and no other.
//
// A test runs itself under strace(1) by Trace; the traced test starts something
// and tells by Write which programs it ran; Check compares.
package launchtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// Trace runs a test of the running test binary under strace, with env added to
// its environment, and writes what it calls to file. It skips where there is no
// strace.
func Trace(t *testing.T, file, test string, env ...string) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	cmd := exec.Command(strace, "-f", "-qq", "-e", "raw=all", "-e", "signal=none", "-o", file, os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Of describes a program that ran: stage is the process ID of its stage, which
// only this program has, status the host's end of the status pipe.
func Of(p *launch.Program, stage, status int) Program {
	steps := map[string][]launch.Expected{}
	for _, a := range []launch.Actor{launch.Host, launch.Stage, launch.Init} {
		steps[a.String()] = p.Expect(a)
	}
	return Program{p.Name, stage, status, steps}
}

// Write is called by the traced test, with all programs that are to be checked.
func Write(t *testing.T, file string, programs ...Program) {
	t.Helper()
	b, err := json.Marshal(programs)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Check compares a trace with the programs, count of them, that were told.
func Check(t *testing.T, trace, programs string, count int) {
	t.Helper()
	calls := readTrace(t, trace)
	for _, p := range readPrograms(t, programs, count) {
		t.Run(p.Name, func(t *testing.T) { p.check(t, calls) })
	}
}

// Program is what the traced process tells of a program that it ran.
type Program struct {
	Name   string
	Begin  int // process ID of the stage, which only this program has
	Status int // the host's end of the status pipe
	Steps  map[string][]launch.Expected
}

func readPrograms(t *testing.T, name string, count int) (out []Program) {
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil || len(out) != count {
		t.Fatalf("%d programs, %v", len(out), err)
	}
	return out
}

// tracedCall is one line of a trace.
type tracedCall struct {
	thread int
	name   string
	args   []uint64
	result int64
}

var (
	lineRE    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\w+)`)
	startedRE = regexp.MustCompile(`^(\d+) +(\w+)\((.*?) ?<unfinished \.\.\.>$`)
	resumedRE = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\w+)`)
	neverRE   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += \?`)
	againRE   = regexp.MustCompile(`^(\d+) +(<\.\.\. )?.* = (\?|-1) ERESTART(SYS|NOINTR|NOHAND)\b`)
)

// readTrace parses strace's output; calls come in the order of their starts. One
// that a signal interrupted is the same call when it is made again, be it by the
// kernel or by the caller: the Go runtime stops its threads by signals, more of
// them on a busy machine.
func readTrace(t *testing.T, name string) (out []*tracedCall) {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	open := map[string]*tracedCall{}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Text()
		add := func(m []string) *tracedCall {
			thread, _ := strconv.Atoi(m[1])
			c := &tracedCall{thread: thread, name: m[2], args: numbers(m[3])}
			out = append(out, c)
			return c
		}
		if m := againRE.FindStringSubmatch(line); m != nil {
			if m[2] != "" {
				out = slices.DeleteFunc(out, func(c *tracedCall) bool { return c == open[m[1]] })
			}
		} else if m := startedRE.FindStringSubmatch(line); m != nil {
			open[m[1]] = add(m)
		} else if m := resumedRE.FindStringSubmatch(line); m != nil {
			c := open[m[1]]
			c.args = append(c.args, numbers(strings.TrimPrefix(m[3], ", "))...)
			c.result, _ = strconv.ParseInt(m[4], 0, 64)
		} else if m := neverRE.FindStringSubmatch(line); m != nil {
			add(m)
		} else if m := lineRE.FindStringSubmatch(line); m != nil {
			add(m).result, _ = strconv.ParseInt(m[4], 0, 64)
		}
	}
	return out
}

func numbers(s string) (out []uint64) {
	for _, f := range strings.Split(s, ",") {
		if f = strings.TrimSpace(f); f != "" {
			n, _ := strconv.ParseUint(f, 0, 64)
			out = append(out, n)
		}
	}
	return out
}

// noise are the system calls that the Go runtime makes on any of its threads.
var noise = []string{"futex", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "gettid", "madvise", "mmap", "munmap", "nanosleep",
	"epoll_pwait", "clock_gettime", "tgkill", "getpid", "sched_yield", "restart_syscall", "mprotect", "prctl_set_vma"}

func (p Program) check(t *testing.T, calls []*tracedCall) {
	host, init := 0, 0
	start, seen := -1, false
	for i, c := range calls {
		switch {
		case (c.name == "clone" || c.name == "clone3") && int(c.result) == p.Begin:
			host, seen = c.thread, true
		case (c.name == "clone" || c.name == "clone3") && c.thread == p.Begin && c.result > 0:
			init = int(c.result)
		}
		_ = i
	}
	if !seen || init == 0 {
		t.Fatalf("the trace does not show the clone of the stage %d", p.Begin)
	}
	// The host's thread exists for the program alone, so all it does counts.
	hostCalls := quiet(of(calls, host), noise)
	first := p.Steps["host"][0].Call
	for i, c := range hostCalls {
		if c.name == first && start < 0 {
			start = i
		}
	}
	if start < 0 {
		t.Fatalf("the host never called %s", first)
	}
	// Messages come in any order, so only the number of reads is fixed.
	want := slices.DeleteFunc(slices.Clone(p.Steps["host"]), func(e launch.Expected) bool { return e.Await })
	reads := 0
	var got []*tracedCall
	message := func(i int) bool {
		return i < len(hostCalls) && hostCalls[i].name == "read" && hostCalls[i].args[0] == uint64(p.Status)
	}
	for i := start; i < len(hostCalls); i++ {
		switch c := hostCalls[i]; {
		case message(i):
			reads++
		case (c.name == "poll" || c.name == "ppoll") && message(i+1): // waits for it
		default:
			got = append(got, c)
		}
	}
	if messages := len(p.Steps["host"]) - len(want); reads != messages {
		t.Errorf("the host read %d messages, the program has %d", reads, messages)
	}
	rest := compare(t, "host", want, got)
	if len(rest) == 0 || rest[0].name != "wait4" {
		t.Errorf("after the program the host's thread called %v, want wait4 only", rest)
	}
	// The runtime's part of a fork resets signal handlers.
	compareAll(t, "stage", p.Steps["stage"], quiet(of(calls, p.Begin), []string{"rt_sigprocmask", "rt_sigaction"}))
	inside := of(calls, init)
	end := slices.IndexFunc(inside, func(c *tracedCall) bool { return c.name == "execve" })
	if end < 0 {
		t.Fatal("the first process never called execve")
	}
	compareAll(t, "init", p.Steps["init"], inside[:end+1])
}

func of(calls []*tracedCall, thread int) (out []*tracedCall) {
	for _, c := range calls {
		if c.thread == thread {
			out = append(out, c)
		}
	}
	return out
}

func quiet(calls []*tracedCall, noise []string) (out []*tracedCall) {
	const cloneThread = 0x10000
	for _, c := range calls {
		if slices.Contains(noise, c.name) || c.name == "clone" && len(c.args) > 0 && c.args[0]&cloneThread != 0 {
			continue
		}
		out = append(out, c)
	}
	return out
}

func compareAll(t *testing.T, actor string, want []launch.Expected, got []*tracedCall) {
	t.Helper()
	if rest := compare(t, actor, want, got); len(rest) > 0 {
		t.Errorf("%s: calls beyond the program: %s …", actor, rest[0])
	}
}

// compare matches want with the beginning of got and returns the rest of got.
func compare(t *testing.T, actor string, want []launch.Expected, got []*tracedCall) []*tracedCall {
	t.Helper()
	for i, w := range want {
		if len(got) == 0 {
			t.Fatalf("%s: step %d, %s, was not called", actor, i, w.Call)
		}
		if !matches(w, got[0]) {
			t.Fatalf("%s: step %d: the program says %s, the trace %s", actor, i, describe(w), got[0])
		}
		got = got[1:]
		for w.Repeated && len(got) > 0 && got[0].name == w.Call {
			got = got[1:]
		}
	}
	return got
}

func matches(w launch.Expected, c *tracedCall) bool {
	if w.Call != c.name {
		return false
	}
	for i, a := range w.Args {
		// A tracer shows only the arguments that the call has, and a 32-bit one
		// without its upper half.
		if a != nil && i < len(c.args) && uint32(*a) != uint32(c.args[i]) {
			return false
		}
	}
	return true
}

func describe(w launch.Expected) string {
	var args []string
	for _, a := range w.Args {
		if a == nil {
			args = append(args, "…")
		} else {
			args = append(args, fmt.Sprintf("%#x", *a))
		}
	}
	return w.Call + "(" + strings.Join(args, ", ") + ")"
}

func (c *tracedCall) String() string {
	var args []string
	for _, a := range c.args {
		args = append(args, fmt.Sprintf("%#x", a))
	}
	return fmt.Sprintf("%s(%s) = %d", c.name, strings.Join(args, ", "), c.result)
}
