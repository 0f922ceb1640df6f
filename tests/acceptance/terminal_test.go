package acceptance

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/tty"
)

// terminal is a command with a terminal of its own; the test is the person.
type terminal struct {
	testing.TB
	master *os.File
	cmd    *exec.Cmd
	screen lines
	seen   int // how much of the screen expect has passed
}

// openTerminal opens a pseudo-terminal, see pts(4).
func openTerminal(t testing.TB) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var unlock, number int32
	for request, value := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlock, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// terminal starts a command on a terminal of 24 by 80.
func (w *world) terminal(args ...string) *terminal {
	w.Helper()
	master, slave := openTerminal(w)
	defer slave.Close()
	x := &terminal{TB: w.TB, master: master, cmd: w.command(args...)}
	x.resize(24, 80)
	x.cmd.Env = append(x.cmd.Env, "TERM=xterm")
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		w.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b) // EIO when the last slave is closed
			x.screen.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	w.Cleanup(func() {
		x.cmd.Process.Kill()
		x.cmd.Wait()
		<-done
		master.Close()
	})
	return x
}

func (x *terminal) resize(rows, cols uint16) {
	x.Helper()
	if err := tty.SetSize(x.master, tty.Size{Rows: rows, Cols: cols}); err != nil {
		x.Fatal(err)
	}
}

// say types.
func (x *terminal) say(keys string) {
	x.Helper()
	if _, err := x.master.WriteString(keys); err != nil {
		x.Fatal(err)
	}
}

// expect waits until something comes on the screen, after what was expected
// before.
func (x *terminal) expect(what string) {
	x.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := x.screen.String()[x.seen:]
		if i := strings.Index(s, what); i >= 0 {
			x.seen += i + len(what)
			return
		}
		if time.Now().After(end) {
			x.Fatalf("%q never came; there is %q", what, s)
		}
	}
}

// end waits for the command.
func (x *terminal) end() int {
	x.Helper()
	return exitCode(x, x.cmd.Wait())
}

// TestShell works in a shell: job control, interrupts, resizing.
func TestShell(t *testing.T) {
	w := newWorld(t)
	for _, start := range [][]string{
		{"run", "-it", "--rm", "-e", "PS1=> ", "box", "sh"},
		{"exec", "-it", "-e", "PS1=> ", "host", "sh"},
	} {
		t.Run(start[0], func(t *testing.T) {
			if start[0] == "exec" {
				w.start("host", "box", "sleep", "1000")
			}
			w.TB = t
			x := w.terminal(start...)
			x.expect("> ")
			x.say("tty; stty size\n")
			x.expect("/dev/pts/")
			x.expect("24 80\r\n")
			x.resize(33, 101)
			x.await("33 101")
			// A program says that it runs, so that keys are its own from then on.
			program := func(last string) {
				x.say("sh -c 'echo program-$((1+1)); exec " + last + "'\n")
				x.expect("program-2\r\n")
			}
			program("sleep 100")
			x.say("\x03")
			x.expect("^C\r\n> ")
			x.say("echo code $?\n")
			x.expect("code 130\r\n")
			program("sleep 101")
			x.say("\x1a")
			x.expect("Stopped")
			x.say("jobs\n")
			x.expect("exec sleep 101")
			x.say("bg\n")
			x.expect("[1] sh -c")
			x.expect("> ")
			x.say("fg\n")
			x.expect("exec sleep 101\"\r\n")
			x.insist("\x03", "^C\r\n> ")
			program("cat")
			x.say("typed\n")
			x.expect("typed\r\ntyped\r\n")
			x.say("\x04")
			x.expect("> ")
			x.say("exit 7\n")
			if code := x.end(); code != 7 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// insist types until something comes on the screen: what the keys are for may not be
// in the foreground yet.
func (x *terminal) insist(keys, what string) {
	x.Helper()
	for range 100 {
		x.say(keys)
		time.Sleep(200 * time.Millisecond)
		if strings.Contains(x.screen.String()[x.seen:], what) {
			break
		}
	}
	x.expect(what)
}

// await asks the shell for its size until it is as wanted: the signal that
// tells of it takes its time.
func (x *terminal) await(size string) {
	x.Helper()
	for n := 0; ; n++ {
		x.say(fmt.Sprintf("echo size$(stty size)n%d\n", n))
		x.expect(fmt.Sprintf("n%d\r\n", n)) // the echo of what was typed
		x.expect(fmt.Sprintf("n%d\r\n", n))
		if strings.Contains(x.screen.String(), "size"+size+"n") {
			return
		}
		if n == 100 {
			x.Fatalf("size %s never came", size)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestDetach leaves a shell by keys and comes back.
func TestDetach(t *testing.T) {
	w := newWorld(t)
	x := w.terminal("run", "-it", "--name", "shell", "-e", "PS1=> ", "box", "sh")
	x.expect("> ")
	x.say("A=kept\n")
	x.expect("> ")
	x.say("\x10\x11")
	x.expect("detached")
	if code := x.end(); code != 0 {
		t.Errorf("exit code %d after detaching", code)
	}
	if got := w.inspect("shell", ".State.Status"); got != "running" {
		t.Fatalf("got %s", got)
	}
	x = w.terminal("attach", "--detach-keys", "ctrl-x", "shell")
	x.say("echo it is $A\n")
	x.expect("it is kept")
	x.say("\x18")
	x.expect("detached")
	if code := x.end(); code != 0 {
		t.Errorf("exit code %d after detaching", code)
	}
	// The person's terminal goes away: the workload stays.
	x = w.terminal("attach", "shell")
	x.say("echo again $A\n")
	x.expect("again kept")
	x.cmd.Process.Signal(syscall.SIGHUP)
	x.end()
	x = w.terminal("attach", "shell")
	x.say("echo thrice $A\n")
	x.expect("thrice kept")
	x.say("exit 3\n")
	if code := x.end(); code != 3 {
		t.Errorf("exit code %d", code)
	}
}

// TestTerminalIsRestored looks at the terminal's settings after a command that
// changed them ends, however it ends.
func TestTerminalIsRestored(t *testing.T) {
	w := newWorld(t)
	for _, how := range []string{"exit\n", "kill -9 $$\n", "TERM"} {
		x := w.terminal("run", "-it", "--init", "--rm", "-e", "PS1=> ", "box", "sh")
		x.expect("> ")
		if how == "TERM" {
			x.cmd.Process.Signal(syscall.SIGTERM)
		} else {
			x.say(how)
		}
		x.end()
		var termios syscall.Termios
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, x.master.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&termios))); errno != 0 {
			t.Fatal(errno)
		}
		if termios.Lflag&syscall.ECHO == 0 || termios.Lflag&syscall.ICANON == 0 || termios.Oflag&syscall.OPOST == 0 {
			t.Errorf("after %q: the terminal is still raw", how)
		}
		if ids := w.ok("ps", "-q"); ids != "" {
			w.ok("rm", "-f", ids)
		}
	}
	r := w.do("run", "--rm", "-it", "box", "sh")
	if r.code != 125 {
		t.Errorf("without a terminal: %+v", r)
	}
	w.oneSentence("-it without a terminal", r, "terminal")
}
