package terminal

import (
	"os"
	"syscall"
	"testing"
	"time"
)

func TestGuardReportsResize(t *testing.T) {
	resized := make(chan bool, 8)
	stop := Guard(t.Context(), nil, func() { resized <- true }, func(code int) { t.Errorf("exit %d", code) })
	defer stop()
	for _, sig := range []syscall.Signal{syscall.SIGWINCH, syscall.SIGCONT} {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		select {
		case <-resized:
		case <-time.After(10 * time.Second):
			t.Fatalf("%v was not reported", sig)
		}
	}
}

// TestGuardEarly: a signal that came before the guard, when it only canceled, ends the
// program all the same, and so does one that comes later.
func TestGuardEarly(t *testing.T) {
	ctx, end := Interruptible(t.Context())
	defer end()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	exits := make(chan int, 8)
	stop := Guard(ctx, nil, func() {}, func(code int) { exits <- code })
	defer stop()
	select {
	case code := <-exits:
		if code != 128+int(syscall.SIGTERM) {
			t.Errorf("got %d", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the signal got lost")
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := <-exits; code != 128+int(syscall.SIGINT) {
		t.Errorf("got %d", code)
	}
}

func TestProxy(t *testing.T) {
	got := make(chan syscall.Signal, 8)
	stop := Proxy(t.Context(), func(s syscall.Signal) { got <- s })
	defer stop()
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGINT, 35} {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-got:
			if s != sig {
				t.Errorf("got %v, want %v", s, sig)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%v was not passed on", sig)
		}
	}
	stop()
	stop()
}

// TestInterruptsOnce: a signal that comes while a program goes over from being
// canceled by it to passing it on is passed on once, be it early or late.
func TestInterruptsOnce(t *testing.T) {
	early := 0
	for i := range 200 {
		ctx, end := Interruptible(t.Context())
		sent := make(chan error)
		go func() {
			time.Sleep(time.Duration(i%20) * 5 * time.Microsecond)
			sent <- syscall.Kill(os.Getpid(), syscall.SIGINT)
		}()
		time.Sleep(50 * time.Microsecond)
		if ctx.Err() != nil {
			early++
		}
		got := make(chan syscall.Signal, 8)
		stop := Proxy(ctx, func(s syscall.Signal) { got <- s })
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-got:
			if s != syscall.SIGINT {
				t.Errorf("got %v, want SIGINT", s)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the signal got lost")
		}
		// Signals of one number that are pending at once are one; the next is another.
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s != syscall.SIGTERM {
			t.Fatalf("round %d: passed on a second time", i)
		}
		stop()
		end()
	}
	t.Logf("%d of 200 came before they could be passed on", early)
}

func TestInterruptsCancel(t *testing.T) {
	ctx, end := Interruptible(t.Context())
	defer end()
	stop := Proxy(ctx, func(s syscall.Signal) { t.Errorf("%v was passed on after the end", s) })
	stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the signal did not cancel")
	}
}
