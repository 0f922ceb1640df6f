package vm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// systemArguments tell the init of a whole system, if it is systemd, what it has
// for a console: one that only shows, to whoever reads the workload's log. They
// are of systemd(1), kernel-command-line(7) and systemd-getty-generator(8);
// others ignore them. TERM keeps colours out of the log.
var systemArguments = []string{
	"net.ifnames=0", // systemd.link(5): the network interfaces keep the names that the agent gave them
	"systemd.show_status=error", "systemd.journald.forward_to_console=yes", "systemd.getty_auto=no", "TERM=dumb",
}

// withModules adds the modules of the guest's kernel to the mounts of a whole
// system, unless the user has mounted something there.
func withModules(s workload.Spec, m *boundary.Machine) workload.Spec {
	if !s.VM.System || m.Modules == "" {
		return s
	}
	target := "/lib/modules/" + m.Release
	if slices.ContainsFunc(s.Mounts, func(u workload.Mount) bool { return u.Target == target }) {
		return s
	}
	s.Mounts = append(slices.Clone(s.Mounts), workload.Mount{Type: "bind", Source: m.Modules, Target: target, ReadOnly: true})
	return s
}

// system is a whole system: the workload and its machine are one.
type system struct {
	*instance

	mu     sync.Mutex
	killed bool
}

var (
	_ boundary.Instance = (*system)(nil)
	_ boundary.Pauser   = (*system)(nil)
	_ boundary.Lister   = (*system)(nil)
)

// Wait returns how the system ended. One whose init ends the machine by itself,
// without a word to the agent, has powered off, or asked for a reboot.
func (s *system) Wait(ctx context.Context) (workload.Exit, error) {
	e, err := s.instance.Instance.Wait(ctx)
	if !errors.Is(err, client.ErrGuestLost) {
		return e, err
	}
	select { // the connection ends a moment before the VMM
	case <-s.machine.vmm.Done():
	case <-time.After(killTimeout):
	case <-ctx.Done():
		return workload.Exit{}, ctx.Err()
	}
	s.mu.Lock()
	killed := s.killed
	s.mu.Unlock()
	if killed {
		return workload.Exit{Code: 128 + int(syscall.SIGKILL), Signal: int(syscall.SIGKILL), At: time.Now()}, nil
	}
	switch s.machine.vmm.Ending() {
	case qemu.PoweredOff:
		return workload.Exit{At: time.Now()}, nil
	case qemu.Restarted:
		return workload.Exit{Code: rebootCode, At: time.Now()}, nil
	}
	select {
	case <-s.machine.vmm.Done():
	default:
		return workload.Exit{}, fmt.Errorf("the agent was ended from inside the system: %w", err)
	}
	var f *fault
	if err = s.machine.fault(err); errors.As(err, &f) && f.Who == qemu.Agent {
		f.Who = "system" // the first process is its own, and so is the blame for the end of it
	}
	return workload.Exit{}, err
}

// rebootCode is the exit code of a system that asked for a reboot; the agent has
// the same.
const rebootCode = 133

// Signal asks the system's init. SIGKILL, which no first process gets from its
// kernel, ends the machine.
func (s *system) Signal(ctx context.Context, sig syscall.Signal) error {
	if sig != syscall.SIGKILL {
		return s.instance.Signal(ctx, sig)
	}
	s.mu.Lock()
	s.killed = true
	s.mu.Unlock()
	s.machine.vmm.Kill()
	return nil
}

// Pause stops the machine's processors.
func (s *system) Pause(ctx context.Context) error { return s.machine.processors.hold(ctx) }

// Resume lets them go on.
func (s *system) Resume(ctx context.Context) error { return s.machine.letGo(ctx) }
