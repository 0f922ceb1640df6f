package terminal

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/term"
)

// openPTY returns both sides of a new pseudo-terminal.
func openPTY(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	var n, unlock int32
	ioctl(t, person, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock))
	ioctl(t, person, syscall.TIOCGPTN, unsafe.Pointer(&n))
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close(); program.Close() })
	return person, program
}

func ioctl(t *testing.T, f *os.File, req uintptr, arg unsafe.Pointer) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), req, uintptr(arg)); errno != 0 {
		t.Fatalf("ioctl %#x: %v", req, errno)
	}
}

// state returns the terminal's settings in a form that can be compared.
func state(t *testing.T, f *os.File) string {
	t.Helper()
	s, err := term.GetState(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v", *s)
}

func TestRawIsRestoredOnce(t *testing.T) {
	_, tty := openPTY(t)
	before := state(t, tty)
	r, err := MakeRaw(tty)
	if err != nil {
		t.Fatal(err)
	}
	raw := state(t, tty)
	if raw == before {
		t.Fatal("MakeRaw changed nothing")
	}
	r.again()
	if got := state(t, tty); got != raw {
		t.Error("again left raw mode")
	}
	r.Restore()
	if got := state(t, tty); got != before {
		t.Errorf("after Restore: %s, want %s", got, before)
	}
	r2, err := MakeRaw(tty)
	if err != nil {
		t.Fatal(err)
	}
	defer r2.Restore()
	r.Restore()
	r.again()
	if got := state(t, tty); got != raw {
		t.Error("a second Restore acted")
	}
	(*Raw)(nil).Restore()
}

func TestSize(t *testing.T) {
	person, tty := openPTY(t)
	ws := [4]uint16{24, 80}
	ioctl(t, person, syscall.TIOCSWINSZ, unsafe.Pointer(&ws))
	if rows, cols := Size(tty); rows != 24 || cols != 80 {
		t.Errorf("Size = %d, %d", rows, cols)
	}
	for _, f := range []any{nil, (*os.File)(nil), &bytes.Buffer{}} {
		if rows, cols := Size(f); rows != 0 || cols != 0 || IsTerminal(f) {
			t.Errorf("%T has a size or is a terminal", f)
		}
	}
	if !IsTerminal(tty) {
		t.Error("a terminal is none")
	}
}

// The ways out of a program in raw mode: each runs this test binary as a child
// on a terminal of its own, which must be as before when the child has ended.
func TestTerminalIsRestoredOnTheWayOut(t *testing.T) {
	for _, tt := range []struct {
		way  string
		sig  syscall.Signal
		want int
	}{
		{"return", 0, 0}, {"panic", 0, 2}, {"panic in goroutine", 0, 2},
		{"signal", syscall.SIGTERM, 143}, {"signal", syscall.SIGHUP, 129}, {"signal", syscall.SIGINT, 130},
		{"signal at the start", syscall.SIGHUP, 129}, {"signal at the start", syscall.SIGQUIT, 131}, {"broken pipe", 0, 3},
	} {
		t.Run(fmt.Sprint(tt.way, " ", tt.sig), func(t *testing.T) {
			_, tty := openPTY(t)
			before := state(t, tty)
			cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
			cmd.Env = append(os.Environ(), "TERMINAL_CHILD="+tt.way)
			cmd.Stdin = tty
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ready := make([]byte, 4)
			if _, err := out.Read(ready); err != nil || string(ready) != "raw\n" {
				t.Fatalf("child says %q, %v: %s", ready, err, stderr.String())
			}
			if tt.way == "broken pipe" {
				out.Close()
			}
			if tt.sig != 0 {
				if err := cmd.Process.Signal(tt.sig); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != tt.want {
				t.Errorf("exit code %d, want %d: %s", got, tt.want, stderr.String())
			}
			if got := state(t, tty); got != before {
				t.Errorf("terminal left as %s, want %s", got, before)
			}
		})
	}
}

// TestChild is the child of TestTerminalIsRestoredOnTheWayOut.
func TestChild(t *testing.T) {
	way := os.Getenv("TERMINAL_CHILD")
	if way == "" {
		t.Skip("runs only as a child of TestTerminalIsRestoredOnTheWayOut")
	}
	code := 0
	func() {
		r, err := MakeRaw(os.Stdin)
		if err != nil {
			panic(err)
		}
		defer r.Restore()
		defer GuardStart(r, os.Exit)()
		if way != "signal at the start" {
			defer Guard(context.Background(), r, func() {}, os.Exit)()
		}
		os.Stdout.WriteString("raw\n")
		switch way {
		case "panic":
			panic("on purpose")
		case "panic in goroutine":
			r.Go(func() { panic("on purpose") })
			select {}
		case "signal", "signal at the start":
			select {}
		case "broken pipe":
			for err == nil {
				_, err = os.Stdout.WriteString("more\n")
			}
			code = 3
		}
	}()
	os.Exit(code)
}
