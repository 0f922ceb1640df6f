package orphan

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// leave starts a shell that leaves a process behind, and returns its ID.
func leave(t *testing.T, script string, files ...*os.File) int {
	t.Helper()
	if err := Expect(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe() // which the orphan does not hold
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", "-c", "("+script+") >&- & echo $!")
	cmd.Stdout, cmd.ExtraFiles = w, files
	err = cmd.Run()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 32)
	n, _ := r.Read(b)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestStatus(t *testing.T) {
	p, err := Take(leave(t, "exec sleep 60"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	<-p.Ended()
	if ws, err := p.Status(); err != nil || ws.Signal() != syscall.SIGTERM {
		t.Errorf("got %v, %v", ws, err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a signal afterwards: got %v", err)
	}
	if _, err := Take(p.Pid()); !errors.Is(err, ErrNotOurs) {
		t.Errorf("again: got %v", err)
	}
}

func TestExitCode(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Take(leave(t, "read line <&3; exit 7", r))
	r.Close()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	<-p.Ended()
	if ws, err := p.Status(); err != nil || ws.ExitStatus() != 7 {
		t.Errorf("got %v, %v", ws, err)
	}
}

func TestNotOurs(t *testing.T) {
	for _, pid := range []int{-1, 0, 1, os.Getpid(), 1 << 30} {
		if _, err := Take(pid); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%d: got %v", pid, err)
		}
	}
}
