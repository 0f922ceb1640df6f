package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/boundarytest"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// newRealWorld is a world whose workloads are containers.
func newRealWorld(t *testing.T) *world {
	t.Helper()
	if err := (container.Boundary{}).Check(context.Background()); err != nil {
		t.Skipf("needs containers: %v", err)
	}
	t.Setenv(envReal, "1")
	w := newWorld(t)
	layer := filepath.Join(w.dir, "layer")
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp"} {
		if err := os.Mkdir(filepath.Join(layer, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	boundarytest.BuildProgram(t, filepath.Join(layer, "bin", "program"))
	return w
}

// TestCrashContainers is TestCrash with containers: nothing of cgroups,
// mounts and processes is left either.
func TestCrashContainers(t *testing.T) { testCrash(newRealWorld(t)) }

func TestContainers(t *testing.T) {
	w := newRealWorld(t)
	exit, out, errs := w.run(spec("both"), "")
	if exit.Code != 0 || out != "to stdout\n" || errs != "to stderr\n" {
		t.Errorf("streams: got %+v, %q, %q", exit, out, errs)
	}
	exit, out, _ = w.run(spec("cat"), "in and out")
	if exit.Code != 0 || out != "in and out" {
		t.Errorf("input: got %+v, %q", exit, out)
	}
	exit, out, _ = w.run(spec("bytes", "2000000"), "")
	if exit.Code != 0 || len(out) != 2000000 {
		t.Errorf("many bytes: got %+v, %d", exit, len(out))
	}
	exit, out, _ = w.run(spec("read", "/etc/hostname"), "")
	if exit.Code != 0 || len(out) != 14 {
		t.Errorf("the engine's files: got %+v, %q", exit, out)
	}
	s := spec("write", "/kept", "text")
	s.Name = "keeps"
	w.run(s, "")
	if b, err := os.ReadFile(filepath.Join(w.want("keeps", workload.Exited).Upper, "kept")); err != nil || string(b) != "text" {
		t.Errorf("the writable layer: got %q, %v", b, err)
	}
}

func TestContainerTerminal(t *testing.T) {
	w := newRealWorld(t)
	s := spec("terminal")
	s.Process.Terminal, s.KeepStdin = true, true
	in, typed := io.Pipe()
	out, shown := io.Pipe()
	session, err := w.Run(ctx(t), s, &Streams{In: in, Out: shown, Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(out, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	expect("24 80\r\n")
	if err := session.Resize(50, 132); err != nil {
		t.Error(err)
	}
	expect("50 132\r\n")
	go typed.Write([]byte("x\n"))
	go io.Copy(io.Discard, out)
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 0 {
		t.Errorf("got %+v, %v", exit, err)
	}
	typed.Close()
}

// TestTerminalTail expects the last output of a process with a terminal, which
// is read after the process has ended.
func TestTerminalTail(t *testing.T) {
	w := newRealWorld(t)
	for range 20 {
		s := spec("bytes", "3000")
		s.Process.Terminal, s.AutoRemove = true, true
		var out bytes.Buffer
		session, err := w.Run(ctx(t), s, &Streams{Out: &out})
		if err != nil {
			t.Fatal(err)
		}
		if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 0 {
			t.Errorf("got %+v, %v", exit, err)
		}
		// The terminal writes a carriage return before each newline.
		if got := bytes.ReplaceAll(out.Bytes(), []byte("\r\n"), []byte("\n")); len(got) != 3000 {
			t.Errorf("got %d bytes, want 3000", len(got))
		}
	}
}

// TestKillContainerSupervisor ends the supervisor of a container: it must take
// the container down, at once or with the next command.
func TestKillContainerSupervisor(t *testing.T) {
	w := newRealWorld(t)
	for range 5 {
		s := spec("spawn", "3")
		s.Name, s.AutoRemove = "k", true
		session, err := w.Run(ctx(t), s, &Streams{})
		if err != nil {
			t.Fatal(err)
		}
		r := session.Record
		var proc *Session
		if proc, err = w.Exec(ctx(t), "k", process("pause"), &Streams{}); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(w.want("k", workload.Running).SupervisorPID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*Session{session, proc} {
			if _, err := s.Wait(ctx(t)); err == nil || !strings.Contains(err.Error(), "supervisor lost") {
				t.Errorf("session: got %v", err)
			}
		}
		w.reopen()
		w.wantEmpty()
		// Dead, whether or not it has been reaped.
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.PID))
		if err == nil && !bytes.Contains(b, []byte(") Z ")) {
			t.Errorf("the first process lives: %s", b)
		}
	}
	w.said = nil
}

func TestManyContainers(t *testing.T) {
	w := newRealWorld(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 3 {
				s := spec("exit", "3")
				s.AutoRemove = true
				session, err := w.Run(ctx(t), s, &Streams{})
				if err != nil {
					t.Error(err)
					return
				}
				if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 3 {
					t.Errorf("got %+v, %v", exit, err)
				}
			}
		})
	}
	wg.Wait()
	w.wantEmpty()
}

// TestKillAnyTime ends supervisors of containers after ever longer times, and
// so between any two steps of the boundary's, too.
func TestKillAnyTime(t *testing.T) {
	w := newRealWorld(t)
	started, ended := 0, 0
	for d := time.Duration(0); d < 60*time.Millisecond; d += time.Millisecond {
		t.Setenv(envTimer, d.String())
		w.reopen()
		s := spec("both")
		s.AutoRemove = true
		session, err := w.Run(ctx(t), s, &Streams{})
		if err == nil {
			started++
			if _, err = session.Wait(ctx(t)); err == nil {
				ended++
			}
		}
		if err != nil && !errors.Is(err, workload.ErrSupervisorLost) {
			t.Errorf("after %v: got %v", d, err)
		}
		// Run and Wait have cleaned up.
		if left := w.left(); len(left) > 0 {
			t.Fatalf("after %v (%v): left behind: %v; warnings: %q", d, err, left[:min(len(left), 4)], w.said)
		}
	}
	t.Logf("%d of 60 were started, %d ended by themselves", started, ended)
	os.Unsetenv(envTimer)
	w.said = nil
}
