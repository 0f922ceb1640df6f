package pid1

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A whole system has a first process of its own. The agent prepares its root
// and asks PID 1 to become it:
//
//	agent                                    PID 1: Init
//	  SwitchRoot: what to run, in a file
//	  SIGUSR1 ─────────────────────────────▶ become
//	                                           a mount namespace of its own
//	                                           pivot_root
//	  error, or the end of the file ◀───FIFO── execve
//	  serves on, in the namespace that         │
//	  the guest began with                     ▼ the image's init
//
// The agent survives the last kill of systemd's shutdown, which spares
// processes of root whose argv[0] begins with '@' (systemd's document "Storage
// Daemons for the Root File System"), and so can tell the host how the system
// ended: Shutdown.

// handoverDir holds what agent and PID 1 tell each other.
const (
	handoverDir  = "/run/bulkhead/handover"
	handoverFile = handoverDir + "/system.json"
	outcomeFIFO  = handoverDir + "/outcome"
)

// handoverLimit is how long PID 1 may take to become another program.
const handoverLimit = 20 * time.Second

// handover is what PID 1 shall become.
type handover struct {
	Root    string   `json:"root"`
	Program string   `json:"program"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
}

// outcome is why it could not; nothing at all is written when it could.
type outcome struct {
	Errno syscall.Errno `json:"errno"`
	What  string        `json:"what"`
}

// SwitchRoot makes PID 1 the init of a whole system: with root, a mount point,
// as its root directory it executes program, a path below it. It returns when
// the program runs. An error that comes from execve wraps its number. It works
// once.
func (m *Machine) SwitchRoot(root, program string, args, env []string) error {
	if err := os.MkdirAll(handoverDir, 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(handover{root, program, args, env})
	if err != nil {
		return err
	}
	if err := os.WriteFile(handoverFile, b, 0o600); err != nil {
		return err
	}
	if err := unix.Mkfifo(outcomeFIFO, 0o600); err != nil {
		return &os.PathError{Op: "mkfifo", Path: outcomeFIFO, Err: err}
	}
	type result struct {
		b   []byte
		err error
	}
	told := make(chan result, 1)
	go func() {
		f, err := os.Open(outcomeFIFO) // waits for PID 1 to open it
		if err != nil {
			told <- result{nil, err}
			return
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, 1<<16))
		told <- result{b, err}
	}()
	if err := syscall.Kill(1, syscall.SIGUSR1); err != nil {
		return fmt.Errorf("ask the first process: %w", err)
	}
	select {
	case r := <-told:
		if r.err != nil {
			return r.err
		}
		if len(r.b) == 0 {
			m.switched.Store(true)
			return nil
		}
		var o outcome
		if err := json.Unmarshal(r.b, &o); err != nil {
			return fmt.Errorf("the first process says %.100q: %w", r.b, err)
		}
		return fmt.Errorf("%s: %w", o.What, o.Errno)
	case <-time.After(handoverLimit):
		return errors.New("the first process does not answer")
	}
}

// become is PID 1's side of SwitchRoot. It returns only if it failed, and has
// told why.
func become() {
	// Never unlocked: what it does to its thread must not reach other goroutines.
	runtime.LockOSThread()
	told, err := os.OpenFile(outcomeFIFO, os.O_WRONLY, 0)
	if err != nil {
		Log("become a system: %v", err)
		return
	}
	defer told.Close()
	what, err := switchTo()
	o := outcome{Errno: syscall.EINVAL, What: what}
	if !errors.As(err, &o.Errno) {
		o.What = fmt.Sprintf("%s: %v", what, err)
	}
	b, err := json.Marshal(o)
	if err == nil {
		_, err = told.Write(b)
	}
	if err != nil {
		Log("become a system: %s: %v", what, err)
	}
}

// switchTo does it, and returns at which step it failed.
func switchTo() (step string, err error) {
	b, err := os.ReadFile(handoverFile)
	if err != nil {
		return "read what to become", err
	}
	var h handover
	if err := json.Unmarshal(b, &h); err != nil {
		return "read what to become", err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return "make a mount namespace", err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "make the mounts private", err
	}
	if err := unix.Chdir(h.Root); err != nil {
		return "enter the system's root", err
	}
	// The old root comes to lie on the new one, from where it is unmounted:
	// pivot_root(2), "pivot_root(".", ".")".
	if err := unix.PivotRoot(".", "."); err != nil {
		return "switch to the system's root", err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return "leave the guest's root", err
	}
	if err := unix.Chdir("/"); err != nil {
		return "enter the system's root", err
	}
	console, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "open the system's console", err
	}
	for fd := range 3 {
		if err := unix.Dup3(console, fd, 0); err != nil {
			return "take the system's console", err
		}
	}
	return "execute " + h.Program, syscall.Exec(h.Program, h.Args, h.Env)
}

// ShutdownProgram is the name, in the system's /run/initramfs, under which
// systemd's shutdown executes this program as PID 1 when it has stopped all
// else: bootup(7), "System Manager Shutdown".
const ShutdownProgram = "shutdown"

// EndFIFO is beside it: the first line says how the system ends, in the words of
// systemd-shutdown(8).
const EndFIFO = "bulkhead-end"

// IsShutdown tells whether this process is the last of a system: PID 1 under the
// name that systemd calls it by.
func IsShutdown() bool {
	return os.Getpid() == 1 && len(os.Args) > 1 && filepath.Base(os.Args[0]) == ShutdownProgram
}

// hostLimit is how long the host may take to hear of the end.
const hostLimit = 20 * time.Second

// Shutdown is the end of a system that systemd has stopped. It takes down the
// old root, so that nothing of it is left to be written, lets the agent tell the
// host and unmount the data disk, and ends the machine, whatever the verb: on a
// machine without ACPI nothing but a restart ends the VMM.
func Shutdown() {
	defer func() {
		if r := recover(); r != nil {
			Log("shutdown panicked: %v", r)
		}
		end()
	}()
	within(endLimit, "write back", unix.Sync)
	if err := unix.Unmount("/oldroot", unix.MNT_DETACH); err != nil {
		Log("unmount the system's root: %v", err)
	}
	// Nobody reads it when the agent has been killed.
	f, err := os.OpenFile("/"+EndFIFO, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		Log("tell the agent: %v", err)
		return
	}
	if _, err := f.WriteString(os.Args[1] + "\n"); err != nil {
		Log("tell the agent: %v", err)
		return
	}
	within(hostLimit, "wait for the agent", func() {
		for {
			if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && err != syscall.EINTR {
				return // ECHILD
			}
		}
	})
}

// leave is the agent's end in a system. If that has ended, Shutdown waits for
// the agent; if not, nobody else would end the machine.
func (m *Machine) leave() {
	over := m.over.Load()
	if !over {
		Log("the host ends the machine while the system runs")
		_ = syscall.Kill(-1, syscall.SIGKILL) // all but PID 1 and this process
	}
	within(endLimit, "write back", unix.Sync)
	within(endLimit, "unmount the data disk", func() {
		if err := unmountData(); err != nil {
			Log("%v", err)
		}
	})
	if over {
		return
	}
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	Log("restart: %v", err)
}

// SystemOver says that the system has stopped, and that Shutdown is what runs as
// PID 1.
func (m *Machine) SystemOver() { m.over.Store(true) }
