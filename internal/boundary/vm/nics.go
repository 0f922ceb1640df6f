package vm

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A workload with a machine to itself has its network devices from the start.
// A tenant's machine has qemu.MaxNICs of them, connected to nothing: when a
// workload comes, its supervisor sends the descriptors of its tap devices, and
// the machine's connects as many, until the workload is gone.

// nicSlot is a network device of a machine.
type nicSlot struct {
	device string // its own MAC address
	taken  bool
}

// errNICs tells that the machine has no network device left.
var errNICs = errors.New("the tenant's machine has no network device left")

// slotMAC is the address that the n-th device of a tenant's machine has by itself.
// It is seen in the guest only: the agent sets the one that the network gave the
// workload before the device is switched on.
func slotMAC(n int) string { return fmt.Sprintf("02:00:00:00:00:%02x", n+1) }

// checkNICs makes sure that each interface has its descriptor.
func checkNICs(p boundary.Prepared) error {
	if len(p.NICs) != len(p.Taps) {
		return fmt.Errorf("%d network interfaces, and descriptors of %d", len(p.NICs), len(p.Taps))
	}
	return nil
}

// nicsOf are the network devices of a machine.
func nicsOf(s workload.Spec, p boundary.Prepared) []qemu.NIC {
	var nics []qemu.NIC
	if s.VM.Machine {
		for n := range qemu.MaxNICs {
			nics = append(nics, qemu.NIC{MAC: slotMAC(n), Kind: qemu.Slot})
		}
		return nics
	}
	for i, n := range p.NICs {
		nic := qemu.NIC{MAC: n.MAC, Kind: kindOf(n)}
		if i < len(p.Taps) { // not where it is only explained
			nic.File = p.Taps[i]
		}
		nics = append(nics, nic)
	}
	return nics
}

// kindOf tells what descriptor an interface has.
func kindOf(n workload.NIC) qemu.NICKind {
	if n.Link == "" {
		return qemu.Stream
	}
	return qemu.Tap
}

// explainNICs fills in interfaces that a workload would get, where none has been
// made.
func explainNICs(s workload.Spec, p boundary.Prepared) (_ boundary.Prepared, assumed bool) {
	if len(p.NICs) > 0 || s.VM.Machine {
		return p, false
	}
	switch s.Network {
	case workload.NetworkUser:
		p.NICs = []workload.NIC{{MAC: slotMAC(0)}}
	case workload.NetworkBridge:
		for i := range max(1, len(s.Networks)) {
			n := workload.NIC{MAC: slotMAC(i), Link: "tap"}
			if i < len(s.Networks) && s.Networks[i].MAC != "" {
				n.MAC = s.Networks[i].MAC
			}
			p.NICs = append(p.NICs, n)
		}
	}
	return p, len(p.NICs) > 0
}

// Plug connects a device of the guest that nobody uses. What its last user left
// of it, the agent replaces.
func (m *machine) Plug(ctx context.Context, tap *os.File, stream bool) (device string, release func(), err error) {
	kind := qemu.Tap
	if stream {
		kind = qemu.Stream
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := range m.nics {
		s := &m.nics[n]
		if s.taken {
			continue
		}
		err := within(ctx, answerTimeout, func(ctx context.Context) error { return m.vmm.InsertNIC(ctx, n, kind, tap) })
		if err != nil {
			return "", nil, err
		}
		s.taken = true
		return s.device, func() { m.unplug(n) }, nil
	}
	return "", nil, fmt.Errorf("%w: %w: all %d are in use", workload.ErrUnsupported, errNICs, len(m.nics))
}

// unplug frees a device. One that QEMU does not let go of stays taken.
func (m *machine) unplug(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := within(context.Background(), answerTimeout, func(ctx context.Context) error { return m.vmm.EjectNIC(ctx, n) })
	if err == nil {
		m.nics[n].taken = false
	}
}

// plug connects the interfaces of a workload in its tenant's machine, and
// returns the devices.
func (r *remains) plug(ctx context.Context, p boundary.Prepared, host boundary.Host) ([]string, error) {
	var devices []string
	for i, n := range p.NICs {
		err := within(ctx, answerTimeout, func(ctx context.Context) error {
			device, release, err := host.Plug(ctx, p.Taps[i], kindOf(n) == qemu.Stream)
			if err == nil {
				devices = append(devices, device)
				r.unplug = append(r.unplug, release)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("network interface %s: %w", n.Name, err)
		}
	}
	return devices, nil
}
