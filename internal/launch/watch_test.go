package launch

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// orphaning is a program whose stage dies between the fork of the first process
// and the message about it, as when the kernel kills it for want of memory. The
// first process waits for the host.
func orphaning(t *testing.T) *Program {
	p := New("orphaning")
	r, w := pipe(t)
	status, tell := p.Given("status", r, ""), p.Given("tell", w, "")
	goRead, goWrite := pipe(t)
	waits, lets := p.Given("go", goRead, ""), p.Given("let_go", goWrite, "")
	p.Status(status, tell)
	stage, child := p.Slot("stage"), p.Slot("init")
	p.Fork(Host, Stage, 0, "0", stage, 0, "")
	p.CloseOthers(Stage, "", FD(0), FD(1), FD(2), Use(tell), Use(waits))
	p.Fork(Stage, Init, unix.CLONE_PARENT, "CLONE_PARENT", child, 0, "")
	p.Do(Stage, ExitGroup, "", Int(0))
	p.Await(1, child, "its process ID")
	p.Do(Host, Write, "", Use(lets), Str("."), Int(1))
	p.Do(Init, Read, "", Use(waits), Buf(make([]byte, 1), ""), Int(1)).Wanting(1)
	if err := p.Build(); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestStageDiesSilently: the first process holds the status pipe, so there is
// no end of it to be seen.
func TestStageDiesSilently(t *testing.T) {
	runBounded(t, context.Background(), orphaning(t), ErrChildDied)
}

// TestCancelledOrphan: cancelling does not depend on knowing every child.
func TestCancelledOrphan(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	runBounded(t, ctx, orphaning(t), context.DeadlineExceeded)
}

// TestDeathBeforeSecondFork: until it has forked for the last time the host
// itself holds an end of the status pipe.
func TestDeathBeforeSecondFork(t *testing.T) {
	p := New("two forks")
	r, w := pipe(t)
	status, tell := p.Given("status", r, ""), p.Given("tell", w, "")
	p.Status(status, tell)
	p.Fork(Host, Stage, 0, "0", p.Slot("stage"), 0, "")
	p.Do(Stage, ExitGroup, "dies", Int(0))
	p.Await(1, 0, "what never comes")
	p.Fork(Host, Mounter, unix.CLONE_FILES, "CLONE_FILES", p.Slot("mounter"), 0, "")
	mounted := p.Tell(Mounter, 0, "")
	p.Await(mounted, 0, "")
	if err := p.Build(); err != nil {
		t.Fatal(err)
	}
	runBounded(t, context.Background(), p, ErrChildDied)
}

// runBounded wants the program to fail with want soon, and no child left.
func runBounded(t *testing.T, ctx context.Context, p *Program, want error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := p.Run(ctx, Options{})
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the program hangs")
	}
	if n := children(t); len(n) > 0 {
		t.Errorf("children are left: %v", n)
	}
}

// children lists those of all threads.
func children(t *testing.T) (out []int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children") // the thread may have ended
		for _, f := range strings.Fields(string(b)) {
			pid, _ := strconv.Atoi(f)
			out = append(out, pid)
		}
	}
	return out
}

// TestLateAbort: what comes after the success changes nothing.
func TestLateAbort(t *testing.T) {
	x := &execution{p: New(""), m: &memory{}}
	if !x.seal() {
		t.Fatal("a program that was not aborted cannot be sealed")
	}
	x.children = []int{os.Getpid()}
	x.abort() // would kill this test
	y := &execution{p: New(""), m: &memory{}}
	y.abort()
	if y.seal() {
		t.Error("an aborted program was sealed")
	}
}

// TestTakenMessageIsKnown: on a busy machine a long time may pass between a read
// that has taken a child's last message and whoever read it going on. The child
// must not be taken for lost in between.
func TestTakenMessageIsKnown(t *testing.T) {
	r, w := pipe(t)
	defer unix.Close(r)
	defer unix.Close(w)
	p := New("told")
	p.Status(p.Given("status", r, ""), p.Given("tell", w, ""))
	x := &execution{p: p, m: &memory{}}
	x.m.values[p.statusRead] = uintptr(r)
	done := make(chan error, 1)
	go func() {
		_, _, err := x.record()
		done <- err
	}()
	for waiting := false; !waiting; time.Sleep(time.Millisecond) {
		x.mu.Lock()
		waiting = x.awaiting
		x.mu.Unlock()
	}
	x.mu.Lock() // whoever reads does not go on
	if _, err := unix.Write(w, make([]byte, recordSize)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if n, err := unix.IoctlGetInt(r, unix.TIOCINQ); err != nil || n != recordSize || !x.awaiting {
		t.Errorf("%d bytes are in the pipe, %v; awaited: %v", n, err, x.awaiting)
	}
	x.mu.Unlock()
	if err := <-done; err != nil || x.awaiting {
		t.Errorf("the record: %v; awaited: %v", err, x.awaiting)
	}
}
