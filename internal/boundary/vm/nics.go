package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
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
	used   bool // the guest may have it from a workload that did not give it back
	broken bool // as a slot's
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
// of it, the agent replaces. One that was used before is not connected until the
// guest says that it has it back: the end of its last user may have been told by
// nobody, where the guest was silent, and who runs on would be in the next one's
// network.
func (m *machine) Plug(ctx context.Context, tap *os.File, stream bool) (device string, release func(), err error) {
	kind := qemu.Tap
	if stream {
		kind = qemu.Stream
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	kept, err := m.keptDevices(ctx)
	if err != nil {
		return "", nil, err
	}
	var free, broken []int
	for n, s := range m.nics {
		switch {
		case s.taken, slices.Contains(kept, s.device):
		case s.broken:
			broken = append(broken, n)
		default:
			free = append(free, n)
		}
	}
	err = within(ctx, answerTimeout, func(ctx context.Context) error {
		err := fmt.Errorf("%w: %w: all %d are in use", workload.ErrUnsupported, errNICs, len(m.nics))
		for _, n := range append(free, broken...) {
			if err = m.connect(ctx, n, kind, tap); err == nil {
				device, release = m.nics[n].device, func() { m.unplug(n) }
				break
			}
		}
		return err
	})
	return device, release, err
}

// keptDevices are those that workloads in the guest have. It asks only if there is
// one that was used and that nobody uses.
func (m *machine) keptDevices(ctx context.Context) (devices []string, err error) {
	if !slices.ContainsFunc(m.nics, func(s nicSlot) bool { return s.used && !s.taken }) {
		return nil, nil
	}
	err = within(ctx, answerTimeout, func(ctx context.Context) error {
		st, err := clientOf(m).Status(ctx)
		if err == nil {
			devices = st.Devices
		}
		return err
	})
	return devices, err
}

// connect puts a device's other side into its slot.
func (m *machine) connect(ctx context.Context, n int, kind qemu.NICKind, tap *os.File) error {
	s := &m.nics[n]
	s.broken = true
	if err := m.exchange.EjectNIC(ctx, n); err != nil {
		return err
	}
	if err := m.exchange.InsertNIC(ctx, n, kind, tap); err != nil {
		return err
	}
	s.taken, s.used, s.broken = true, true, false
	return nil
}

// unplug frees a device. One that QEMU does not let go of is told so again when it
// is wanted, see connect.
func (m *machine) unplug(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := within(context.Background(), answerTimeout, func(ctx context.Context) error { return m.exchange.EjectNIC(ctx, n) })
	m.nics[n].taken, m.nics[n].broken = false, err != nil
}

// plugged is a network device of a tenant's machine that a workload has.
type plugged struct {
	name, device string // inside, and its own MAC address
	release      func()
}

// inGuest is an interface as the guest is told of it.
func inGuest(n workload.NIC, device string) protocol.NIC {
	n.Network, n.NetworkID, n.Link = "", "", "" // the host's affair
	return protocol.NIC{NIC: n, Device: device}
}

// plug connects the interfaces of a workload in its tenant's machine, and
// returns the devices.
func (r *remains) plug(ctx context.Context, nics []workload.NIC, taps []*os.File, host boundary.Host) ([]string, error) {
	var devices []string
	for i, n := range nics {
		err := within(ctx, answerTimeout, func(ctx context.Context) error {
			device, release, err := host.Plug(ctx, taps[i], kindOf(n) == qemu.Stream)
			if err == nil {
				devices = append(devices, device)
				r.plugs = append(r.plugs, plugged{n.Name, device, release})
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("network interface %s: %w", n.Name, err)
		}
	}
	return devices, nil
}

// lodger is a workload in its tenant's machine, whose network devices come and go
// while it runs.
type lodger struct{ *instance }

var _ boundary.Rewirer = (*lodger)(nil)

// Rewire changes the workload's network interfaces. Devices are free for others
// only when the guest says that it has them back: until then whoever has hidden
// one would be in the other's network.
func (l *lodger) Rewire(ctx context.Context, w boundary.Rewiring) error {
	if len(w.Add) != len(w.Taps) {
		return fmt.Errorf("%d network interfaces, and descriptors of %d", len(w.Add), len(w.Taps))
	}
	req := protocol.Rewire{Files: w.Files}
	for _, n := range w.Remove {
		if i := l.plugOf(n); i >= 0 {
			req.Remove = append(req.Remove, inGuest(n, l.plugs[i].device))
		}
	}
	for _, n := range w.Route {
		if i := l.plugOf(n); i >= 0 {
			req.Route = append(req.Route, inGuest(n, l.plugs[i].device))
		}
	}
	devices, err := l.plug(ctx, w.Add, w.Taps, l.b.Reach(l.record.Socket))
	if err != nil {
		l.free(w.Add)
		return err
	}
	for i, n := range w.Add {
		req.Add = append(req.Add, inGuest(n, devices[i]))
	}
	err = within(ctx, answerTimeout, func(ctx context.Context) error { return l.Instance.Rewire(ctx, req) })
	if err != nil && len(w.Add) > 0 {
		// What the guest made of it, it is to undo; if it does not say so, the devices
		// stay the workload's until its end.
		undo := protocol.Rewire{Remove: req.Add}
		if within(ctx, answerTimeout, func(ctx context.Context) error { return l.Instance.Rewire(ctx, undo) }) == nil {
			l.free(w.Add)
		}
	}
	if err != nil {
		return l.blame(err)
	}
	l.free(w.Remove)
	return nil
}

// plugOf is the device of an interface, -1 if it has none any more.
func (r *remains) plugOf(n workload.NIC) int {
	return slices.IndexFunc(r.plugs, func(p plugged) bool { return p.name == n.Name })
}

// free gives the devices of interfaces back to the machine.
func (r *remains) free(nics []workload.NIC) {
	for _, n := range nics {
		if i := r.plugOf(n); i >= 0 {
			r.plugs[i].release()
			r.plugs = slices.Delete(r.plugs, i, i+1)
		}
	}
}
