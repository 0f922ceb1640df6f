// Package nic makes a guest's network devices into the interfaces of a workload:
//
//	machine                   guest's namespace         workload's namespace
//	  device, own MAC   ───▶    eth3             ───▶     eth0, its MAC, MTU
//	                                                      addresses, routes
//	                  driver     eth3             ◀───     wherever it is now
//
// An interface can come to a workload that runs, and leave it.
//
// A device is found by the MAC address that it has by itself; in a tenant's machine
// it serves one workload after the other. It is taken back by taking it from its
// driver, which ends the interface in whatever namespace the workload has hidden
// it, and giving it to the driver again, which makes a new one in the guest's. Of
// what the workload made of the old one, names and flags and queues, nothing is
// left, and no other that looks like it can be taken for it.
package nic

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
)

// appear is how long a device may take to appear, while its driver probes. Tests
// shorten it.
var appear = 20 * time.Second

// Devices are the network devices of a guest. The zero Devices is ready for use.
type Devices struct {
	mu    sync.Mutex
	given map[rtnl.MAC]string // those that workloads have, by the kernel's names of them
}

// Attach puts devices of the guest's namespace, which the caller is in, into ns
// and configures them. A nil ns is the guest's own: that of a whole system. One that
// was given before is taken back first.
func (d *Devices) Attach(nics []protocol.NIC, ns *os.File) error {
	for i, n := range nics {
		if err := d.move(n, ns, i); err != nil {
			return fmt.Errorf("network interface %s: %w", n.Name, err)
		}
	}
	return rtnl.In(ns, func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		for i, n := range nics {
			if err := configure(c, n, ns, i); err != nil {
				return fmt.Errorf("network interface %s: %w", n.Name, err)
			}
		}
		return nil
	})
}

// is tells whether an interface is the device with this MAC address of its own.
func is(device rtnl.MAC) func(rtnl.Link) bool {
	return func(l rtnl.Link) bool {
		return l.Permanent == device || l.Permanent == rtnl.MAC{} && l.MAC == device
	}
}

// Detach takes devices back, wherever their workload has put them. One that was not
// given, or is back already, is no error.
func (d *Devices) Detach(nics []protocol.NIC) error {
	for _, n := range nics {
		device, err := rtnl.ParseMAC(n.Device)
		if err == nil {
			err = d.takeBack(device)
		}
		if err != nil {
			return fmt.Errorf("network interface %s: %w", n.Name, err)
		}
	}
	return nil
}

func (d *Devices) takeBack(device rtnl.MAC) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, ok := d.given[device]
	if !ok {
		return nil
	}
	if err := renew(name); err != nil {
		return fmt.Errorf("take back the device %s: %w", device, err)
	}
	delete(d.given, device)
	return nil
}

// give writes down who is to be taken back.
func (d *Devices) give(device rtnl.MAC, l rtnl.Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.given == nil {
		d.given = map[rtnl.MAC]string{}
	}
	d.given[device] = nameOf(l)
}

// Given are the MAC addresses of the devices that workloads have.
func (d *Devices) Given() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for device := range d.given {
		out = append(out, device.String())
	}
	slices.Sort(out)
	return out
}

// nameOf and renew are for virtio devices. Tests have others.
var (
	nameOf = func(l rtnl.Link) string { return l.Virtio }
	renew  = renewVirtio
)

// driver is the directory of the driver of virtio network devices.
const driver = "/sys/bus/virtio/drivers/virtio_net/"

// renewVirtio takes a device from its driver and gives it back.
func renewVirtio(name string) error {
	if name == "" {
		return errors.New("it is no virtio device")
	}
	// ENODEV: it has no driver, as an earlier try got no further.
	if err := os.WriteFile(driver+"unbind", []byte(name), 0); err != nil && !errors.Is(err, syscall.ENODEV) {
		return err
	}
	return os.WriteFile(driver+"bind", []byte(name), 0)
}

// Route makes the gateways of interfaces in ns the default routes of it.
func Route(nics []protocol.NIC, ns *os.File) error {
	if len(nics) == 0 {
		return nil
	}
	c, err := rtnl.DialIn(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, n := range nics {
		if err := route(c, n); err != nil {
			return fmt.Errorf("network interface %s: %w", n.Name, err)
		}
	}
	return nil
}

func route(c *rtnl.Conn, n protocol.NIC) error {
	device, err := rtnl.ParseMAC(n.Device)
	if err != nil {
		return err
	}
	l, err := c.Find(is(device))
	if err != nil {
		return err
	}
	for _, g := range n.Gateways {
		if err := c.AddDefaultRoute(l.Index, g); err != nil {
			return err
		}
	}
	return nil
}

// temporary is the name of a device that stays in the guest's namespace, until
// all are found: the names that they are to have may be others' yet.
func temporary(i int) string { return "bulkhead" + strconv.Itoa(i) }

// move takes one device to where it shall be.
func (d *Devices) move(n protocol.NIC, ns *os.File, i int) error {
	device, err := rtnl.ParseMAC(n.Device)
	if err != nil {
		return err
	}
	mac, err := rtnl.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	if err := d.takeBack(device); err != nil {
		return err
	}
	l, err := rtnl.Await(appear, is(device))
	if errors.Is(err, rtnl.ErrNoLink) {
		return fmt.Errorf("%w: the guest has no network device %s, or no driver for it", err, n.Device)
	}
	if err != nil {
		return err
	}
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	d.give(device, l)
	if err := c.SetLink(l.Index, rtnl.Change{State: rtnl.Down}); err != nil {
		return err
	}
	to := rtnl.Change{Name: n.Name, MAC: mac, MTU: n.MTU, Namespace: ns}
	if ns == nil {
		to.Name = temporary(i)
	}
	return c.SetLink(l.Index, to)
}

// configure makes an interface work.
func configure(c *rtnl.Conn, n protocol.NIC, ns *os.File, i int) error {
	name := n.Name
	if ns == nil {
		name = temporary(i)
	}
	l, err := c.Find(func(l rtnl.Link) bool { return l.Name == name })
	if err != nil {
		return err
	}
	if ns == nil {
		if err := c.SetLink(l.Index, rtnl.Change{Name: n.Name}); err != nil {
			return err
		}
	}
	l.Name = n.Name
	return c.Configure(l, n.Addresses, n.Gateways)
}
