package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// narrow returns a pipe that holds one page, so that a writer waits for its reader.
func narrow(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	return r, w
}

// begun runs a command line whose output is w, and returns its exit code.
func begun(t *testing.T, h *host, w *os.File, args ...string) <-chan int {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	code := make(chan int, 1)
	go func() {
		code <- invoke(append([]string{"bulkhead-oci", "--root", h.root}, args...), null, w, null)
		w.Close()
	}()
	return code
}

// TestSlowReader: all that a process writes on its terminal arrives, also after its
// end, and at a reader that takes its time.
func TestSlowReader(t *testing.T) {
	h := newHost(t)
	want := strings.Repeat("0123456789abcde\n", 1500)
	script := `i=0; while [ $i -lt 1500 ]; do echo 0123456789abcde; i=$((i+1)); done`
	const id = "lifecycle-slow"
	h.write(func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", script)
	read := func(args ...string) {
		t.Helper()
		r, w := narrow(t)
		code := begun(t, h, w, args...)
		var got bytes.Buffer
		for {
			if _, err := io.CopyN(&got, r, 6000); err != nil {
				break
			}
			time.Sleep(2 * quiet) // longer than a silence that is the end
		}
		// A process that exec starts may write before its terminal keeps newlines.
		text := strings.ReplaceAll(got.String(), "\r\n", "\n")
		if c := <-code; c != 0 || text != want {
			t.Errorf("%s: exit code %d, %d bytes of %d", args[0], c, len(text), len(want))
		}
	}
	read("run", "--bundle", h.bundle, id)
	h.write(nil, "sleep", "1000")
	h.must("run", "--detach", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	read("exec", "--tty", id, "sh", "-c", script)
}

// TestTerminalHeldOpen: neither a silent process in the background nor one that
// writes for ever holds up the command whose terminal it has.
func TestTerminalHeldOpen(t *testing.T) {
	h := newHost(t)
	const id = "lifecycle-held"
	h.write(nil, "sleep", "1000")
	h.must("run", "--detach", "--bundle", h.bundle, id)
	defer h.must("delete", "--force", id)
	for _, script := range []string{
		`trap "" HUP; sleep 1000 & echo finished`,
		`trap "" HUP; while :; do echo more; done & echo finished`,
	} {
		r, w := narrow(t)
		code := begun(t, h, w, "exec", "--tty", id, "sh", "-c", script)
		out, err := io.ReadAll(r)
		if c := <-code; c != 0 || err != nil || !strings.Contains(string(out), "finished") {
			t.Errorf("%s: %d, %v, %d bytes", script, c, err, len(out))
		}
	}
}

// TestSignalEndsDrain: a reader that does not read does not make the command one
// that cannot be ended.
func TestSignalEndsDrain(t *testing.T) {
	_, w := narrow(t)
	master, slave := terminalPair(t)
	s := &session{
		terminal: master, signals: make(chan os.Signal, 1), done: make(chan struct{}),
		output: make(chan struct{}), moved: make(chan struct{}, 1),
	}
	if _, err := slave.WriteString(strings.Repeat("x", 4000)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString(strings.Repeat("y", 4096)); err != nil { // it is full
		t.Fatal(err)
	}
	go s.copyOutput(w)
	s.signals <- syscall.SIGTERM
	s.drain()
}

// TestModesAfterFailure: a terminal that was made raw is as before when there is no
// session after all.
func TestModesAfterFailure(t *testing.T) {
	_, person := terminalPair(t)
	_, w := narrow(t)
	before, err := unix.IoctlGetTermios(int(person.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	notOne, _ := narrow(t)
	c := &command{stdin: person, stdout: w, release: func() {}}
	if _, err := attach(c, notOne, func(syscall.Signal) error { return nil }); err == nil {
		t.Fatal("a pipe is a terminal")
	}
	after, err := unix.IoctlGetTermios(int(person.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("modes were %+v, are %+v, %v", before, after, err)
	}
}

// terminalPair opens a new terminal and returns both sides.
func terminalPair(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}
