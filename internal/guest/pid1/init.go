package pid1

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// AgentArgument is what the program is called with to be the agent, and
// agentName its argv[0]: handover.go says why it begins so.
const (
	AgentArgument = "agent"
	agentName     = "@bulkhead-agent"
)

// Init is the life of PID 1. It returns only where this process is not PID 1.
func Init() error {
	if os.Getpid() != 1 {
		return errors.New("this is the first process of a Bulkhead guest; it does nothing elsewhere")
	}
	defer func() {
		// A bug in these few functions; end gives a restart instead of a panic of
		// the kernel.
		if r := recover(); r != nil {
			Log("init panicked: %v", r)
		}
		end()
	}()
	// Ctrl-Alt-Del is a signal to this process: reboot(2).
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		Log("take over Ctrl-Alt-Del: %v", err)
	}
	if err := boot(); err != nil {
		Log("the guest cannot be set up: %v", err)
		return nil
	}
	pid, err := startAgent()
	if err != nil {
		Log("start the agent: %v", err)
		return nil
	}
	if how := supervise(pid); how != "" {
		Log("%s; the machine restarts", how)
	}
	return nil
}

const starting = "bulkhead: the guest is set up, its agent starts\n"

// startAgent runs this very program again. Its file is gone from the initramfs,
// but /proc leads to it. What it prints, such as a panic, goes to the console.
func startAgent() (int, error) {
	console, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil { // a kernel without any console
		if console, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
			return 0, err
		}
	}
	defer console.Close()
	// A quiet kernel says nothing: by this line the host knows, should the agent
	// be silent, that the kernel is not at fault.
	console.WriteString(starting) //nolint:errcheck // for whoever reads it
	fd := console.Fd()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{agentName, AgentArgument}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []uintptr{fd, fd, fd}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	return pid, os.NewSyscallError("execve", err)
}

// supervise reaps children until the agent has ended, and says how it did:
// empty if it was asked to. SIGTERM and SIGINT, the latter also from
// Ctrl-Alt-Del, ask it. SIGUSR1 makes this process another program.
func supervise(agent int) string {
	asked := make(chan os.Signal, 4)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT, syscall.SIGPWR, syscall.SIGUSR1)
	go func() {
		for sig := range asked {
			if sig == syscall.SIGUSR1 {
				go become()
				continue
			}
			_ = syscall.Kill(agent, syscall.SIGTERM) // reap below, and only it, can make the ID another's
		}
	}()
	var ws syscall.WaitStatus
	for {
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return fmt.Sprintf("wait for the agent: %v", err)
		case pid != agent:
			continue
		case ws.Signaled():
			return fmt.Sprintf("the agent was ended by signal %d", int(ws.Signal()))
		case ws.ExitStatus() != 0:
			return fmt.Sprintf("the agent ended with status %d", ws.ExitStatus())
		}
		return ""
	}
}

// endLimit is how long each of the steps of end may take. A disk that the host
// no longer serves must not keep the machine.
const endLimit = 5 * time.Second

// end stops everything, leaves the data disk clean, and restarts the machine.
// The host starts the VMM so that a restart ends it: powering off does not
// work on a machine without ACPI.
func end() {
	within(endLimit, "end the processes", killAll)
	within(endLimit, "write back", unix.Sync)
	within(endLimit, "unmount the data disk", func() {
		if err := unmountData(); err != nil {
			Log("%v", err)
		}
	})
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	Log("restart: %v", err)
	select {} // ending would be a panic of the kernel
}

// within runs f, and leaves it behind when it takes too long.
func within(limit time.Duration, what string, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		Log("%s: gave up after %v", what, limit)
	}
}

// killAll kills and reaps every other process. kill(2) reaches all of them at
// once, and a fork that is under way fails for the signal. A process that ends
// hands its children to us, so when we have none there is none.
func killAll() {
	_ = syscall.Kill(-1, syscall.SIGKILL) // there may be nobody
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && err != syscall.EINTR {
			return // ECHILD
		}
	}
}

// unmountData unmounts the data disk. The mounts of workloads went with their
// namespaces; should something still hold it, then at least nothing of it is
// left to be written.
func unmountData() error {
	err := unix.Unmount(DataDir, 0)
	switch err {
	case nil, unix.EINVAL, unix.ENOENT: // it was not mounted
		return nil
	}
	if ro := unix.Mount("", DataDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); ro != nil {
		return fmt.Errorf("the data disk is left unclean: unmount: %w; make it read-only: %w", err, ro)
	}
	return nil
}
