package seccomp

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// filtered is a real process under a filter.
type filtered struct {
	t        *testing.T
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	listener int // in the process
}

func startFiltered(t *testing.T, f Filter, repeat int) *filtered {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &filtered{t: t, cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), childEnv+"=1")
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	fmt.Fprintf(p.in, "%d %d %s\n", f.Flags, repeat, hex.EncodeToString(f.Bytes()))
	p.out = bufio.NewReader(out)
	if _, err := fmt.Fscanln(p.out, &p.listener); err != nil {
		t.Fatalf("the process did not install the filter: %v", err)
	}
	return p
}

// probe lets the process make its calls and returns their errors.
func (p *filtered) probe(repeat int) []syscall.Errno {
	p.t.Helper()
	return p.send("go", repeat)
}

func (p *filtered) send(command string, repeat int) []syscall.Errno {
	p.t.Helper()
	if _, err := io.WriteString(p.in, command+"\n"); err != nil {
		p.t.Fatal(err)
	}
	var got []syscall.Errno
	for range len(probes) * repeat {
		var errno int
		if _, err := fmt.Fscanln(p.out, &errno); err != nil {
			p.t.Fatalf("the process ended after %d calls: %v", len(got), err)
		}
		got = append(got, syscall.Errno(errno))
	}
	return got
}

// takeListener fetches the listener's descriptor out of the process.
func (p *filtered) takeListener() *os.File {
	p.t.Helper()
	pidfd, err := unix.PidfdOpen(p.cmd.Process.Pid, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, p.listener, 0)
	if err != nil {
		p.t.Skipf("skipped: cannot take a descriptor out of a child process: %v", err)
	}
	f := os.NewFile(uintptr(fd), "seccomp listener")
	p.t.Cleanup(func() { f.Close() })
	return f
}

func defaultFilter(t *testing.T) Filter {
	t.Helper()
	s, err := Default(Conditions{Kernel: kernel61})
	if err != nil {
		t.Fatal(err)
	}
	return mustCompile(t, s)
}

func TestKernelTakesDefault(t *testing.T) {
	for i, errno := range startFiltered(t, defaultFilter(t), 1).probe(1) {
		if errno != probes[i].want {
			t.Errorf("%s: got %d (%v), want %d", probes[i].name, errno, errno, probes[i].want)
		}
	}
}

// TestReporter runs the same calls under the notifying filter: they must end
// alike, and each denied one must be named.
func TestReporter(t *testing.T) {
	original := defaultFilter(t)
	notifying, err := original.Notifying()
	if err != nil {
		t.Fatal(err)
	}
	p := startFiltered(t, notifying, 1)
	var reports []Denied
	r := NewReporter(p.takeListener(), original, 1000, func(d Denied) { reports = append(reports, d) })
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()

	for i, errno := range p.probe(1) {
		if errno != probes[i].want {
			t.Errorf("%s: got %d (%v), want %d", probes[i].name, errno, errno, probes[i].want)
		}
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: got %v, want nil after the process has ended", err)
	}
	var want []probe
	for _, p := range probes {
		if p.want != 0 {
			want = append(want, p)
		}
	}
	if len(reports) != len(want) {
		t.Fatalf("got %d reports, want %d: %v", len(reports), len(want), reports)
	}
	for i, d := range reports {
		name, _, _ := strings.Cut(want[i].name, " ")
		if want[i].nr == 4000 {
			name = ""
		}
		if d.Name != name || d.NR != uint32(want[i].nr) || d.Args[0] != uint64(want[i].args[0]) ||
			d.Errno != want[i].want || d.PID != p.cmd.Process.Pid || ArchName(d.Arch, d.NR) != string(nativeName(t)) {
			t.Errorf("report %d: got %+v, want %s from process %d", i, d, want[i].name, p.cmd.Process.Pid)
		}
	}
	if got, want := reports[0].String(), "keyctl(0xb, 0xc, 0xd, "; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " = EPERM") {
		t.Errorf("got %q, want it to start with %q", got, want)
	}
}

// TestReporterLimit lets a process make far more denied calls than are to be
// reported. All are answered.
func TestReporterLimit(t *testing.T) {
	original := defaultFilter(t)
	notifying, err := original.Notifying()
	if err != nil {
		t.Fatal(err)
	}
	const repeat = 200
	p := startFiltered(t, notifying, repeat)
	reported, suppressed := 0, uint64(0)
	start := time.Now()
	r := NewReporter(p.takeListener(), original, 5, func(d Denied) {
		reported++
		suppressed += d.Suppressed
	})
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	denied := 0
	for i, errno := range p.probe(repeat) {
		want := probes[i%len(probes)].want
		if errno != want {
			t.Fatalf("%s: got %v, want %v", probes[i%len(probes)].name, errno, want)
		}
		if want != 0 {
			denied++
		}
	}
	_ = p.cmd.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if seconds := int(time.Since(start)/time.Second) + 2; reported == 0 || reported > 5*seconds {
		t.Errorf("got %d reports in %d seconds, want 1 to %d", reported, seconds, 5*seconds)
	}
	if got := reported + int(suppressed+r.Suppressed()); got != denied {
		t.Errorf("got %d calls reported or counted, want %d", got, denied)
	}
}

// TestReporterStops ends a Reporter that waits. Calls are then denied by the
// kernel itself.
func TestReporterStops(t *testing.T) {
	original := defaultFilter(t)
	notifying, err := original.Notifying()
	if err != nil {
		t.Fatal(err)
	}
	p := startFiltered(t, notifying, 1)
	listener := p.takeListener()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := NewReporter(listener, original, 5, func(Denied) {})
	go func() { done <- r.Run(ctx) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: got %v, want %v", err, context.Canceled)
	}
	listener.Close()
	for i, errno := range p.send("close", 1) {
		want := probes[i].want
		if want != 0 {
			want = unix.ENOSYS
		}
		if errno != want {
			t.Errorf("%s without a listener: got %v, want %v", probes[i].name, errno, want)
		}
	}
}

// TestServeUnderSignals gives descriptors while signals come, as they do when Go's
// runtime preempts the thread: each call gets its answer.
func TestServeUnderSignals(t *testing.T) {
	notifying, err := defaultFilter(t).Notifying()
	if err != nil {
		t.Fatal(err)
	}
	const repeat = 100
	p := startFiltered(t, notifying, repeat)
	listener := p.takeListener()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	thread, done := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		err := Serve(t.Context(), listener, func(Call) Answer { return Answer{File: null} })
		listener.Close() // whoever still waits for an answer shall not
		done <- err
	}()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tid := <-thread; ; {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
		}
	}()
	for i, errno := range p.send("close", repeat) { // so that the last listener is ours
		if errno != 0 {
			t.Errorf("%s: got %v, want a descriptor", probes[i%len(probes)].name, errno)
			break
		}
	}
	_ = p.cmd.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(stop)
	<-stopped
}

// TestNotifyingKeepsVerdicts compares a filter and its notifying form, call by
// call: only errors turn into notifications.
func TestNotifyingKeepsVerdicts(t *testing.T) {
	original := defaultFilter(t)
	notifying, err := original.Notifying()
	if err != nil {
		t.Fatal(err)
	}
	for i := range arches {
		for _, nr := range numbers() {
			for _, arg := range []uint64{0, 1, 38, 39, 40, 41, 0x20000, ^uint64(0)} {
				d := Data{NR: nr, Arch: arches[i].audit, Args: [6]uint64{arg}}
				was, is := run(t, original, d), run(t, notifying, d)
				if was.Action() == Errno {
					was = Notify
				}
				if is != was {
					t.Fatalf("%+v: got %s, want %s", d, is, was)
				}
			}
		}
	}
	if _, err := notifying.Notifying(); err == nil {
		t.Error("a filter with a listener of its own was accepted")
	}
}

func TestCheckListener(t *testing.T) {
	call := func(name string, a specs.LinuxSeccompAction) []specs.LinuxSyscall {
		return []specs.LinuxSyscall{{Names: []string{"read", name}, Action: a}}
	}
	for _, test := range []struct {
		profile specs.LinuxSeccomp
		want    string
	}{
		{specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: call("mkdir", specs.ActNotify)}, ""},
		{specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: call("write", specs.ActAllow)}, ""},
		{specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: call("write", specs.ActNotify)}, "cannot be used for write"},
		{specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, "cannot be the default action"},
	} {
		err := CheckListener(&test.profile)
		if (test.want != "") != (err != nil) || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", describe(&test.profile), err, test.want)
		}
	}
}
