package qemu

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// Party is who is at fault when a machine does not come up.
type Party string

// The parties.
const (
	Host   Party = "host"   // this machine: missing or old software, no memory, a kill
	VMM    Party = "vmm"    // QEMU
	Kernel Party = "kernel" // the guest's kernel
	Agent  Party = "agent"  // the guest's first process
)

// Fault is why a machine did not come up or ended, as far as the outside shows.
// The guest's part of it is what the guest says.
type Fault struct {
	Who Party
	// Text is one sentence, safe for a terminal.
	Text string
	// Console and Stderr are the last lines of the guest's console and of QEMU,
	// safe for a terminal.
	Console, Stderr []string
	// Panic tells that the guest's kernel says that it has given up.
	Panic bool
	err   error
}

// Error names the party first.
func (f *Fault) Error() string { return string(f.Who) + ": " + f.Text }

// Unwrap returns the cause, if it is one of the host's.
func (f *Fault) Unwrap() error { return f.err }

// consoleLines is how much of the console a fault shows.
const consoleLines = 20

// startFault explains a launch program that failed.
func startFault(err error) error {
	var step *launch.StepError
	if errors.As(err, &step) || errors.Is(err, launch.ErrChildDied) {
		return &Fault{Who: Host, Text: "QEMU could not be confined: " + err.Error(), err: err}
	}
	return err
}

// Diagnose says what is the matter with a machine whose agent did not answer.
// It looks at how QEMU ended, if it did, and at what it and the guest wrote.
func Diagnose(m *Machine) Fault {
	console, stderr := Printable(m.Console()), Printable(m.Stderr())
	f := Fault{Console: lastLines(console, consoleLines), Stderr: lastLines(withoutHubs(stderr), consoleLines), Panic: panicLine(console) != ""}
	select {
	case <-m.done:
		ws, _ := m.running.Wait()
		m.mu.Lock()
		reason := m.reason
		m.mu.Unlock()
		f.Who, f.Text = ended(syscall.WaitStatus(ws), reason, console, f.Stderr)
	default:
		f.Who, f.Text = silent(console)
	}
	return f
}

// Ending is how a guest ended its machine.
type Ending int

// The endings.
const (
	NotEnded   Ending = iota // it runs, or it ended without the guest's will
	PoweredOff               // by ACPI
	Restarted                // which ends the VMM too (-no-reboot)
)

// Ending tells how the guest ended the machine, if that was its kernel's orderly
// doing: a panic, which restarts the machine too, is not.
func (m *Machine) Ending() Ending {
	select {
	case <-m.done:
	default:
		return NotEnded
	}
	ws, err := m.running.Wait()
	if w := syscall.WaitStatus(ws); err != nil || !w.Exited() || w.ExitStatus() != 0 || panicLine(Printable(m.Console())) != "" {
		return NotEnded
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.reason {
	case "guest-shutdown":
		return PoweredOff
	case "guest-reset":
		return Restarted
	}
	return NotEnded
}

// ended judges a machine that is gone.
func ended(ws syscall.WaitStatus, reason, console string, stderr []string) (Party, string) {
	said := ""
	if len(stderr) > 0 {
		said = ": " + strings.TrimPrefix(stderr[len(stderr)-1], binaryName+": ")
	}
	switch {
	case ws.Signaled() && ws.Signal() == syscall.SIGKILL:
		return Host, "QEMU was killed, by somebody or for want of memory"
	case ws.Signaled() && ws.Signal() == syscall.SIGSYS:
		return VMM, "QEMU was ended by its own sandbox for a system call that it may not use" + said
	case starved(stderr) != "" && (ws.Signaled() || ws.ExitStatus() != 0): // GLib aborts
		return Host, "QEMU ended for want of something: " + starved(stderr)
	case ws.Signaled():
		return VMM, fmt.Sprintf("QEMU died of %s%s", ws.Signal(), said)
	case ws.ExitStatus() != 0 && unloadable(said):
		return Kernel, "QEMU cannot load the kernel's image" + said
	case ws.ExitStatus() != 0:
		return VMM, fmt.Sprintf("QEMU ended with status %d%s", ws.ExitStatus(), said)
	}
	if line := panicLine(console); line != "" {
		return blame(line), line
	}
	switch reason {
	case "guest-reset", "guest-shutdown", "guest-panic":
		if console == "" {
			return Kernel, "the guest restarted without a word: its kernel does not boot on this machine, or not with so little memory"
		}
		return Agent, "the guest ended itself: its first program has ended, or asked for it"
	case "host-qmp-quit":
		return Host, "QEMU was told to quit"
	}
	return VMM, "QEMU ended before the guest's agent answered" + said
}

// starved finds the line by which QEMU, or GLib, says that the host has no more
// memory, threads or descriptors for it (strerror(3) of ENOMEM, EAGAIN and EMFILE,
// and gmem.c of GLib).
func starved(stderr []string) string {
	for _, line := range stderr {
		for _, text := range []string{"Cannot allocate memory", "failed to allocate", "Resource temporarily unavailable", "Too many open files"} {
			if strings.Contains(line, text) {
				return strings.TrimPrefix(line, binaryName+": ")
			}
		}
	}
	return ""
}

// unloadable recognizes what QEMU's loader says of a kernel that is damaged or
// of another kind (hw/i386/x86.c of QEMU).
func unloadable(said string) bool {
	return strings.Contains(said, "rror loading uncompressed kernel") || strings.Contains(said, "rror while loading elf kernel")
}

// silent judges a machine that still runs.
func silent(console string) (Party, string) {
	if line := panicLine(console); line != "" {
		return blame(line), line
	}
	if strings.TrimSpace(console) == "" {
		return Kernel, "the guest's kernel wrote nothing and its agent does not answer"
	}
	return Agent, "the guest's agent does not answer"
}

// panicLine finds the line by which Linux says that it gives up.
func panicLine(console string) string {
	i := strings.LastIndex(console, "Kernel panic - not syncing")
	if i < 0 {
		return ""
	}
	line, _, _ := strings.Cut(console[i:], "\n")
	const most = 200
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "…"
	}
	return line
}

// blame tells a panic of the kernel's own from the end of its first process.
func blame(line string) Party {
	if strings.Contains(line, "Attempted to kill init") {
		return Agent
	}
	return Kernel
}
