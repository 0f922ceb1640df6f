// Package nic makes a guest's network devices into the interfaces of a workload:
//
//	machine                   guest's namespace         workload's namespace
//	  device, own MAC   ───▶    eth3             ───▶     eth0, its MAC, MTU
//	                                                      addresses, routes
//	                            eth3             ◀───     (the namespace ends)
//
// An interface can come to a workload that runs, and leave it: then its device is
// moved back.
//
// A device is found by the MAC address that it has by itself, which nobody in
// the guest can change; in a tenant's machine it serves one workload after the
// other. When a network namespace ends, the kernel gives its devices back to
// the guest's: that takes a moment, for which Attach waits.
package nic

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/rtnl"
)

// comeBack is how long a device may be on its way, from the machine or from the
// namespace of a workload that has ended. Tests shorten it.
var comeBack = 20 * time.Second

// Attach puts devices of the guest's namespace, which the caller is in, into ns
// and configures them. A nil ns is the guest's own: that of a whole system.
func Attach(nics []protocol.NIC, ns *os.File) error {
	for i, n := range nics {
		if err := move(n, ns, i); err != nil {
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

// Detach moves devices from ns back to the guest's namespace, which the caller is
// in. One that is there already is no error; one that is in neither, as its
// workload has moved it, is: whoever got it next would share it.
func Detach(nics []protocol.NIC, ns *os.File) error {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	return each(nics, ns, func(c *rtnl.Conn, n protocol.NIC, device rtnl.MAC) error {
		l, err := c.Find(is(device))
		if errors.Is(err, rtnl.ErrNoLink) {
			return home(device)
		}
		if err == nil {
			err = c.SetLink(l.Index, rtnl.Change{State: rtnl.Down})
		}
		if err == nil {
			err = c.SetLink(l.Index, rtnl.Change{Name: spare(device), Namespace: own})
		}
		return err
	})
}

// home makes sure that a device is in the guest's namespace.
func home(device rtnl.MAC) error {
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err = c.Find(is(device)); errors.Is(err, rtnl.ErrNoLink) {
		return fmt.Errorf("%w: the workload has moved the device %s elsewhere", err, device)
	}
	return err
}

// spare is the name of a device that has left its workload: the one that it had
// there may be another's here.
func spare(device rtnl.MAC) string {
	return "bh" + strings.ReplaceAll(device.String(), ":", "")
}

// Route makes the gateways of interfaces in ns the default routes of it.
func Route(nics []protocol.NIC, ns *os.File) error {
	return each(nics, ns, func(c *rtnl.Conn, n protocol.NIC, device rtnl.MAC) error {
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
	})
}

// each calls f for devices, with a socket in ns.
func each(nics []protocol.NIC, ns *os.File, f func(*rtnl.Conn, protocol.NIC, rtnl.MAC) error) error {
	if len(nics) == 0 {
		return nil
	}
	c, err := rtnl.DialIn(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, n := range nics {
		device, err := rtnl.ParseMAC(n.Device)
		if err == nil {
			err = f(c, n, device)
		}
		if err != nil {
			return fmt.Errorf("network interface %s: %w", n.Name, err)
		}
	}
	return nil
}

// temporary is the name of a device that stays in the guest's namespace, until
// all are found: the names that they are to have may be others' yet.
func temporary(i int) string { return "bulkhead" + strconv.Itoa(i) }

// move takes one device to where it shall be.
func move(n protocol.NIC, ns *os.File, i int) error {
	device, err := rtnl.ParseMAC(n.Device)
	if err != nil {
		return err
	}
	mac, err := rtnl.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	l, err := rtnl.Await(comeBack, is(device))
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
