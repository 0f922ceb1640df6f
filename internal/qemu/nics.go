package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// NICKind is what is behind a network device.
type NICKind int

// The kinds of a network device's other side.
const (
	// Tap is a tap device (the kernel's Documentation/networking/tuntap.rst), as
	// an open file that is attached to it.
	Tap NICKind = iota
	// Stream is a stream socket that carries frames, each after its length: four
	// bytes, big endian. The program passt speaks so.
	Stream
	// Slot is nothing yet: InsertNIC puts one of the others there. The device's
	// link is down meanwhile.
	Slot
)

// NIC is a virtio network device. The guest finds it by its MAC address.
type NIC struct {
	// MAC is the device's own, in the form 52:54:00:12:34:56; what the guest sends
	// may carry any other.
	MAC  string
	Kind NICKind
	// File is the other side, nil for a Slot. It stays the caller's.
	File *os.File
}

// MaxNICs is how many network devices a machine has at most: on q35 they are the
// functions of one PCI slot, so that they take no disk's.
const MaxNICs = 8

// nicSlot is the PCI slot of all network devices. Those that QEMU chooses for
// other devices begin at 1; 31 is the chip set's.
const nicSlot = 0x1e

func (n NIC) check() error {
	hex := func(r rune) bool { return r >= '0' && r <= '9' || r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F' }
	ok := len(n.MAC) == len("52:54:00:12:34:56")
	for i, r := range n.MAC {
		ok = ok && (i%3 == 2) == (r == ':') && (r == ':' || hex(r))
	}
	if !ok {
		return fmt.Errorf("MAC address %.40q of a network device: want the form 52:54:00:12:34:56", n.MAC)
	}
	if n.Kind < Tap || n.Kind > Slot {
		return fmt.Errorf("network device %s: kind %d", n.MAC, n.Kind)
	}
	return nil
}

// name is its MAC address as a part of a descriptor's name.
func (n NIC) name() string { return strings.ReplaceAll(strings.ToLower(n.MAC), ":", "") }

func (n NIC) why() string {
	if n.Kind == Stream {
		return "a stream of frames, the other side of network device " + strings.ToLower(n.MAC)
	}
	return "a tap device, the other side of network device " + strings.ToLower(n.MAC)
}

// checkNICs looks at all of them, and whether there is room.
func (c *Config) checkNICs() error {
	switch n := len(c.NICs); {
	case n > MaxNICs:
		return fmt.Errorf("%d network devices: a machine has room for %d", n, MaxNICs)
	case n > 0 && c.Machine == MicroVM && len(c.Disks)+n > MaxDisks(MicroVM):
		return fmt.Errorf("%d disks and %d network devices: a %s machine has room for %d together", len(c.Disks), n, c.Machine, MaxDisks(MicroVM))
	}
	seen := map[string]bool{}
	for _, n := range c.NICs {
		if err := n.check(); err != nil {
			return err
		}
		mac := strings.ToLower(n.MAC)
		if seen[mac] {
			return fmt.Errorf("two network devices with the MAC address %s", mac)
		}
		seen[mac] = true
	}
	return nil
}

// taps tells whether QEMU will have tap devices, now or later.
func (c *Config) taps() bool {
	for _, n := range c.NICs {
		if n.Kind != Stream {
			return true
		}
	}
	return false
}

// The names of a network device and of what is behind it in QMP.
func nicID(n int) string  { return "nic-" + strconv.Itoa(n) }
func netID(n int) string  { return "net-" + strconv.Itoa(n) }
func portID(n int) string { return "port-" + strconv.Itoa(n) }

// nicArgs are the arguments for the n-th network device, with descriptor fd. A
// slot is a port of a hub of its own: a device keeps what it is connected to, but
// ports come and go.
func nicArgs(c *Config, n, fd int) []string {
	id := netID(n)
	var back string
	switch c.NICs[n].Kind {
	case Tap:
		back = "tap,id=" + id + ",fd=" + strconv.Itoa(fd) + ",vhost=off"
	case Stream:
		// Not "stream": QEMU 7.2 connects that by a thread, which does not find a
		// descriptor that came over QMP, and says nothing of it. The frames are
		// the same.
		back = "socket,id=" + id + ",fd=" + strconv.Itoa(fd)
	case Slot:
		back = "hubport,id=" + id + ",hubid=" + strconv.Itoa(n)
	}
	device := "virtio-net-device,id=" + nicID(n)
	if c.Machine == Q35 {
		// No option ROM: nobody boots from a network.
		device = fmt.Sprintf("virtio-net-pci,id=%s,addr=%#x.%d,multifunction=on,romfile=", nicID(n), nicSlot, n)
	}
	// Nothing is announced: what goes on from a template is at no other place than
	// before, as somebody else. And when QEMU 7.2 is done with announcing, the next
	// reset of the device, as at the change of its driver, ends it by a segmentation
	// fault (timer_del of what virtio_net_handle_announce has freed).
	return []string{"-netdev", back, "-device", device + ",netdev=" + id + ",guest_announce=off,mac=" + strings.ToLower(c.NICs[n].MAC)}
}

// InsertNIC connects an empty slot with a tap device or a stream socket, which
// stays the caller's. Its link comes up.
func (m *Machine) InsertNIC(ctx context.Context, n int, kind NICKind, file *os.File) error {
	m.swapping.Lock()
	defer m.swapping.Unlock()
	if err := m.nicSlot(n); err != nil {
		return err
	}
	if m.plugged[n] {
		return fmt.Errorf("slot %d for a network device is in use", n)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapLimit)
	defer cancel()
	return m.plug(ctx, n, kind, file)
}

// plug fills a slot that is empty.
func (m *Machine) plug(ctx context.Context, n int, kind NICKind, file *os.File) error {
	m.set++ // a name of a descriptor is used once
	name := "frames-" + strconv.Itoa(m.set)
	back := map[string]any{"type": "tap", "id": portID(n) + "-tap", "fd": name, "vhost": false}
	switch kind {
	case Stream:
		back = map[string]any{"type": "socket", "id": portID(n) + "-tap", "fd": name}
	case Slot:
		return errors.New("a slot for a network device cannot hold another")
	case Tap:
	}
	if _, err := m.qmp.do(ctx, "getfd", map[string]any{"fdname": name}, file); err != nil {
		return err
	}
	m.plugged[n] = true // whatever QEMU makes of it, and when
	_, err := m.qmp.do(ctx, "netdev_add", back)
	if err != nil {
		m.qmp.do(ctx, "closefd", map[string]any{"fdname": name}) //nolint:errcheck // it may have taken it
	} else {
		_, err = m.qmp.do(ctx, "netdev_add", map[string]any{"type": "hubport", "id": portID(n), "hubid": n, "netdev": portID(n) + "-tap"})
	}
	if err == nil {
		err = m.setLink(ctx, n, true)
	}
	if err != nil {
		return errors.Join(err, m.unplug(ctx, n))
	}
	return nil
}

// EjectNIC empties a slot, and closes QEMU's descriptor of what was there. The
// device's link goes down.
func (m *Machine) EjectNIC(ctx context.Context, n int) error {
	m.swapping.Lock()
	defer m.swapping.Unlock()
	if err := m.nicSlot(n); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapLimit)
	defer cancel()
	return m.unplug(ctx, n)
}

// unplug empties a slot that may be empty.
func (m *Machine) unplug(ctx context.Context, n int) error {
	if !m.plugged[n] {
		return nil
	}
	err := m.setLink(ctx, n, false)
	for _, id := range []string{portID(n), portID(n) + "-tap"} {
		_, e := m.qmp.do(ctx, "netdev_del", map[string]any{"id": id})
		var refused *CommandError
		if errors.As(e, &refused) && strings.Contains(refused.Desc, "not found") {
			e = nil // a try before this one removed it
		}
		err = errors.Join(err, e)
	}
	if err == nil {
		delete(m.plugged, n)
	}
	return err
}

func (m *Machine) setLink(ctx context.Context, n int, up bool) error {
	_, err := m.qmp.do(ctx, "set_link", map[string]any{"name": nicID(n), "up": up})
	return err
}

// darken takes the links of empty slots down.
func (m *Machine) darken(ctx context.Context) error {
	for n, nic := range m.cfg.NICs {
		if nic.Kind != Slot {
			continue
		}
		if err := m.setLink(ctx, n, false); err != nil {
			return err
		}
	}
	return nil
}

// withoutHubs leaves out what QEMU says of slots at every start: that nothing is
// connected to them yet.
func withoutHubs(stderr string) string {
	var b strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.Contains(line, "is not connected to host network") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (m *Machine) nicSlot(n int) error {
	if n < 0 || n >= len(m.cfg.NICs) || m.cfg.NICs[n].Kind != Slot {
		return fmt.Errorf("the machine has no slot %d for a network device", n)
	}
	return nil
}
