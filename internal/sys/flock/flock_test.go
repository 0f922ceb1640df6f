package flock

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestOpen(t *testing.T) {
	name := t.TempDir() + "/lock"
	unlock, err := Open(t.Context(), name, 0, func() { t.Error("nobody has it, and it is waited for") })
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Take(f, syscall.LOCK_SH|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("a second one: %v", err)
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	if _, err := Open(ctx, name, 0, func() { cancel(enough) }); !errors.Is(err, enough) {
		t.Errorf("a wait that was called off: %v", err)
	}
	second := make(chan error, 1)
	waited := make(chan struct{})
	go func() {
		again, err := Open(context.Background(), name, 0, func() { close(waited) })
		if err == nil {
			again()
		}
		second <- err
	}()
	<-waited
	unlock()
	if err := <-second; err != nil {
		t.Errorf("after the first: %v", err)
	}
	// Nor does the one that was called off keep it.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		err := Take(f, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is held still: %v", err)
		}
	}
	if _, err := Open(t.Context(), t.TempDir()+"/no/lock", 0, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
