package system

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// powerOff is SIGRTMIN+4, which tells systemd to power off: systemd(1),
// "Signals". The C library keeps the first two real-time signals for itself.
const powerOff = syscall.Signal(34 + 4)

// Signal sends a signal to PID 1. SIGTERM, which would make systemd execute
// itself anew, is its signal to power off instead. The kernel keeps SIGKILL
// from every first process: the host ends the machine.
//
// It also drops a signal that the first process neither handles nor blocks,
// pid_namespaces(7), which is every one early in the life of an init. Such a
// signal waits until the init is ready for it.
func (i *instance) Signal(_ context.Context, sig syscall.Signal) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	select {
	case <-i.ended:
		return workload.ErrNotRunning
	default:
	}
	if sig == syscall.SIGKILL {
		i.b.Machine.PowerOff()
		return nil
	}
	if !i.started {
		return nil
	}
	if meant := meaning(sig); sig == 0 || heard(meant) {
		return os.NewSyscallError("kill", syscall.Kill(1, meant))
	}
	if !i.waiting[sig] {
		i.waiting[sig] = true
		go i.later(sig)
	}
	return nil
}

// How long a signal waits for an init, and how often it is looked whether that is
// ready. An emulated machine takes its time.
const (
	readyLimit    = 2 * time.Minute
	readyInterval = 50 * time.Millisecond
)

// later sends a signal as soon as the init is ready for it, if it ever is.
func (i *instance) later(sig syscall.Signal) {
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for end := time.Now().Add(readyLimit); time.Now().Before(end) && !heard(meaning(sig)); {
		select {
		case <-i.ended:
			return
		case <-tick.C:
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.waiting, sig)
	_ = syscall.Kill(1, meaning(sig)) // the first process is there as long as this one
}

// meaning is what a signal is for the init that there is.
func meaning(sig syscall.Signal) syscall.Signal {
	if sig == syscall.SIGTERM && isSystemd() {
		return powerOff
	}
	return sig
}

// isSystemd tells whether PID 1 is systemd: by the name that it gives itself
// before anything else, or the directory that sd_booted(3) looks for.
func isSystemd() bool {
	comm, err := os.ReadFile("/proc/1/comm")
	if err == nil && strings.TrimSpace(string(comm)) == "systemd" {
		return true
	}
	fi, err := os.Lstat("/proc/1/root/run/systemd/system")
	return err == nil && fi.IsDir()
}

// heard reports whether a signal to PID 1 would not be dropped.
func heard(sig syscall.Signal) bool {
	status, err := os.ReadFile("/proc/1/status")
	return err == nil && heeds(string(status), sig)
}

// heeds reads proc_pid_status(5): whether a process blocks a signal, which then
// waits, handles it, or has decided to ignore it.
func heeds(status string, sig syscall.Signal) bool {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "SigBlk", "SigIgn", "SigCgt":
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err == nil && sig >= 1 && sig <= 64 && mask&(1<<(sig-1)) != 0 {
				return true
			}
		}
	}
	return false
}
