package attacks

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readTerminal reads everything that a process writes to its terminal.
func readTerminal(t *testing.T, tty io.Reader) string {
	t.Helper()
	done := make(chan string)
	go func() {
		b, _ := io.ReadAll(tty) // EIO when the last process has closed its side
		done <- string(b)
	}()
	select {
	case s := <-done:
		return s
	case <-time.After(limit):
		t.Fatal("the terminal does not end")
		return ""
	}
}

// A process inside writes into the input of the caller's terminal, from where
// the caller's shell executes it (TIOCSTI, CVE-2017-5226 and others; TIOCLINUX
// on a console).
//
// What prevents it here: a container's terminal is one of its own devpts. A
// caller's terminal reaches a process only where the caller passes it as a
// stream and asks for no terminal (bulkhead-oci run), and then it is not the
// process's controlling terminal: it leads a session of its own.
//
// Kernel facts: TIOCSTI wants the caller's own controlling terminal or
// CAP_SYS_ADMIN in the initial user namespace, and dev.tty.legacy_tiocsti
// (Linux 6.2) or CAP_SYS_ADMIN; a terminal that controls one session can be
// taken over by another only with CAP_SYS_ADMIN.

// stealTerminal tries everything on standard input, which is a terminal of the
// caller's.
func stealTerminal([]string) error {
	b := byte('X')
	_, _, e := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&b)))
	try("sti", errOf(e))
	_, _, e = unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 1)
	try("sctty", errOf(e))
	_, _, e = unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&b)))
	try("sti-again", errOf(e))
	fd, err := unix.Open("/dev/tty", unix.O_RDWR, 0)
	if err == nil {
		unix.Close(fd)
	}
	try("tty", err)
	return nil
}

func errOf(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// TestCallersTerminal runs a bundle without a terminal from a session whose
// terminal is the standard input, as a person at a shell does.
func TestCallersTerminal(t *testing.T) {
	c := newCLI(t)
	for _, capability := range []string{"", "CAP_SYS_TTY_CONFIG"} {
		_, slave := openPTY(t)
		bundle := c.bundle(t, capability, "inside", "terminal")
		cmd := exec.Command(c.program("bulkhead-oci"), "--root", filepath.Join(c.dir, "oci"), "run", "--bundle", bundle, c.ociID(t))
		cmd.Stdin = slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		out, err := output1(t, cmd)
		if err != nil {
			t.Fatal(err)
		}
		m := lines(out)
		for _, name := range []string{"sti", "sctty", "sti-again"} {
			if m[name] != "EPERM" && m[name] != "EIO" {
				t.Errorf("capability %q: %s: %q", capability, name, m[name])
			}
		}
		if m["tty"] != "ENXIO" {
			t.Errorf("capability %q: /dev/tty: %q", capability, m["tty"])
		}
	}
}

// TestOwnTerminal: what is pushed into the container's own terminal stays there.
func TestOwnTerminal(t *testing.T) {
	guardLeaks(t)
	tg := newTarget(t, "inside", "terminal")
	tg.spec.Process.Terminal = true
	tg.mustStart(t)
	m := lines(readTerminal(t, tg.inst.Terminal()))
	if m["tty"] != "DONE" {
		t.Errorf("it has no terminal of its own: %v", m)
	}
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		t.Fatal(e)
	}
	slave = os.NewFile(fd, "slave")
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}
