package pidfd

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestWaitForTheEnd(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() { got <- Wait(context.Background(), f) }()
	select {
	case err := <-got:
		t.Fatalf("returned %v while the process runs", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// It ends before its parent reaps it.
	if err := <-got; err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if _, err := Open(cmd.Process.Pid); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("open of an ended process: got %v, want ESRCH", err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	f, err := Open(1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := Wait(ctx, f); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the time is up", err)
	}
}
