package launch

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pipe makes the two ends of a pipe, for the program to own.
func pipe(t testing.TB) (r, w int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

// small is a program whose child changes its host name in a namespace of its
// own and executes argv.
func small(t testing.TB, argv ...string) (*Program, Slot) {
	p := New("small")
	r, w := pipe(t)
	status, tell := p.Given("status", r, ""), p.Given("tell", w, "")
	p.Status(status, tell)
	stage, child := p.Slot("stage"), p.Slot("init")
	p.Fork(Host, Stage, unix.CLONE_NEWUTS, "CLONE_NEWUTS", stage, 0, "a child with a host name of its own")
	p.CloseOthers(Stage, "nothing else leaks", FD(0), FD(1), FD(2), Use(tell))
	name := "cell"
	p.Do(Stage, Sethostname, "", Str(name), Int(len(name)))
	p.Fork(Stage, Init, unix.CLONE_PARENT, "CLONE_PARENT", child, 0, "the child to stay")
	told := p.Tell(Stage, child, "")
	p.Do(Stage, ExitGroup, "", Int(0))
	p.Await(told, child, "")
	p.Do(Host, Wait4, "", Use(stage), Null(), Int(0), Null())
	p.Do(Init, Execve, "run the program", Str(argv[0]), Strs(argv), Strs(nil))
	p.Keep(status)
	if err := p.Build(); err != nil {
		t.Fatal(err)
	}
	return p, child
}

func TestRun(t *testing.T) {
	p, child := small(t, "/bin/sh", "-c", `test "$(uname -n)" = cell && exit 7`)
	t.Log("\n" + p.String())
	r, err := p.Run(context.Background(), Options{Child: child})
	if err != nil {
		t.Fatal(err)
	}
	if err := Outcome(r.Value(p.statusRead), p.Failure); err != nil {
		t.Fatal(err)
	}
	unix.Close(r.Value(p.statusRead))
	ws, err := r.Wait()
	if err != nil || ws.ExitStatus() != 7 {
		t.Fatalf("exit status %v, %v; want 7", ws, err)
	}
}

func TestFailureNamesTheStep(t *testing.T) {
	p, child := small(t, "/nonexistent")
	r, err := p.Run(context.Background(), Options{Child: child})
	if err == nil { // else the child was faster than the host
		err = Outcome(r.Value(p.statusRead), p.Failure)
		unix.Close(r.Value(p.statusRead))
		r.Wait()
	}
	var step *StepError
	if !errors.As(err, &step) || step.Call != Execve || !errors.Is(err, syscall.ENOENT) {
		t.Fatalf("got %v, want execve: ENOENT", err)
	}
	if got := err.Error(); !strings.Contains(got, `run the program: execve("/nonexistent"`) {
		t.Errorf("error %q does not name the step", got)
	}
}

func TestHostFailureKillsChildren(t *testing.T) {
	p := New("fails")
	r, w := pipe(t)
	status, tell := p.Given("status", r, ""), p.Given("tell", w, "")
	p.Status(status, tell)
	stage := p.Slot("stage")
	p.Fork(Host, Stage, 0, "0", stage, 0, "")
	p.Do(Stage, Wait4, "a child that would wait for ever", Int(-1), Null(), Int(0), Null()).Tolerating(syscall.ECHILD)
	p.Do(Stage, Read, "", Use(status), Buf(make([]byte, 8), "b"), Int(8))
	p.Do(Host, Chdir, "go where nothing is", Str("/nonexistent"))
	if err := p.Build(); err != nil {
		t.Fatal(err)
	}
	_, err := p.Run(context.Background(), Options{})
	if !errors.Is(err, syscall.ENOENT) {
		t.Fatalf("got %v, want ENOENT", err)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a child is left: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	p := New("hangs")
	r, w := pipe(t)
	status, tell := p.Given("status", r, ""), p.Given("tell", w, "")
	p.Status(status, tell)
	stage := p.Slot("stage")
	ctx, cancel := context.WithCancel(context.Background())
	p.Fork(Host, Stage, 0, "0", stage, 0, "")
	hold, other := pipe(t)
	h := p.Given("hold", hold, "")
	p.Given("other", other, "")
	_ = h
	p.Do(Stage, Wait4, "", Int(-1), Null(), Int(0), Null()).Tolerating(syscall.ECHILD)
	p.Do(Stage, Read, "", Use(status), Buf(make([]byte, 8), "b"), Int(8))
	p.Go("cancel", func(func(Slot) int) error { cancel(); return nil })
	p.Await(1, 0, "what never comes")
	if err := p.Build(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(ctx, Options{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
}

// TestForkHooks is the canary for the runtime functions that walk_unsafe.go
// reaches by linkname: it fails to link, or hangs, when a Go release changes
// them.
func TestForkHooks(t *testing.T) {
	for range 100 {
		p, child := small(t, "/bin/true")
		r, err := p.Run(context.Background(), Options{Child: child})
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(r.Value(p.statusRead))
		if ws, err := r.Wait(); err != nil || !ws.Exited() || ws.ExitStatus() != 0 {
			t.Fatal(ws, err)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, f := range map[string]func(p *Program){
		"a NUL byte":       func(p *Program) { p.Do(Host, Chdir, "", Str("a\x00b")) },
		"only the host":    func(p *Program) { p.Do(Init, Chdir, "", Pathf("/proc/%d", p.Slot("x"))) },
		"with 7 arguments": func(p *Program) { p.Do(Host, Chdir, "", make([]Arg, 7)...) },
	} {
		p := New("bad")
		f(p)
		if err := p.Build(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want an error with %q", err, name)
		}
	}
}

func TestNoDescriptorLeft(t *testing.T) {
	before, _ := os.ReadDir("/proc/self/fd")
	TestHostFailureKillsChildren(t)
	TestFailureNamesTheStep(t)
	after, _ := os.ReadDir("/proc/self/fd")
	if len(after) != len(before) {
		t.Errorf("%d descriptors before, %d after", len(before), len(after))
	}
}
