package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// MAC is the address of an Ethernet interface.
type MAC [6]byte

// ParseMAC reads an address of one interface in the form 02:42:ac:11:00:02.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	if len(s) != 17 {
		return MAC{}, fmt.Errorf("MAC address %.40q: want six bytes such as 02:42:ac:11:00:02", s)
	}
	for i := range s {
		c, at := s[i], i/3
		switch {
		case i%3 == 2:
			if c != ':' {
				return MAC{}, fmt.Errorf("MAC address %q: want six bytes such as 02:42:ac:11:00:02", s)
			}
			continue
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return MAC{}, fmt.Errorf("MAC address %q: want six bytes such as 02:42:ac:11:00:02", s)
		}
		m[at] = m[at]<<4 | c
	}
	if m[0]&1 != 0 || m == (MAC{}) {
		return MAC{}, fmt.Errorf("MAC address %s is not that of one interface", s)
	}
	return m, nil
}

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Link is one network interface.
type Link struct {
	Index int
	Name  string
	MAC   MAC // zero for what is no Ethernet
	// Permanent is the address that the device itself has, whatever it was set to;
	// zero for one that has none, and before Linux 5.6.
	Permanent MAC
	// Virtio is the kernel's name of the virtio device, such as virtio3, whose
	// interface it is; empty for any other.
	Virtio   string
	MTU      int
	Up       bool
	Loopback bool
}

// ErrNoLink tells that there is no such interface.
var ErrNoLink = errors.New("no such network interface")

// Links lists the interfaces.
func (c *Conn) Links() ([]Link, error) {
	var all []Link
	err := c.do("list network interfaces", unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, linkSize), func(kind uint16, body []byte) error {
		l, err := parseLink(body)
		if err == nil && kind == unix.RTM_NEWLINK {
			all = append(all, l)
		}
		return err
	})
	return all, err
}

// parseLink reads the body of RTM_NEWLINK.
func parseLink(b []byte) (Link, error) {
	if len(b) < linkSize {
		return Link{}, errMalformed
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	l := Link{Index: int(int32(binary.NativeEndian.Uint32(b[4:]))), Up: flags&unix.IFF_UP != 0, Loopback: flags&unix.IFF_LOOPBACK != 0}
	bus := ""
	err := attributes(b[linkSize:], func(kind uint16, value []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(value)
		case unix.IFLA_PARENT_DEV_NAME:
			l.Virtio = text(value)
		case unix.IFLA_PARENT_DEV_BUS_NAME:
			bus = text(value)
		case unix.IFLA_ADDRESS:
			if len(value) == len(l.MAC) {
				l.MAC = MAC(value)
			}
		case unix.IFLA_PERM_ADDRESS:
			if len(value) == len(l.Permanent) {
				l.Permanent = MAC(value)
			}
		case unix.IFLA_MTU:
			if len(value) == 4 {
				l.MTU = int(int32(binary.NativeEndian.Uint32(value)))
			}
		}
	})
	if bus != "virtio" {
		l.Virtio = ""
	}
	return l, err
}

// text is a value that ends at a zero byte.
func text(value []byte) string {
	value, _, _ = bytes.Cut(value, []byte{0})
	return string(value)
}

// Find returns the interface for which is returns true. The error wraps
// ErrNoLink if there is none.
func (c *Conn) Find(is func(Link) bool) (Link, error) {
	all, err := c.Links()
	if err != nil {
		return Link{}, err
	}
	for _, l := range all {
		if is(l) {
			return l, nil
		}
	}
	return Link{}, ErrNoLink
}

// Await is Find for an interface of the thread's network namespace that may
// still be under way, for a limited time.
func Await(limit time.Duration, is func(Link) bool) (Link, error) {
	const linkGroup = 1 // RTMGRP_LINK
	watch, err := dial(linkGroup)
	if err != nil {
		return Link{}, err
	}
	defer watch.Close()
	c, err := Dial()
	if err != nil {
		return Link{}, err
	}
	defer c.Close()
	for deadline := time.Now().Add(limit); ; {
		l, err := c.Find(is)
		if !errors.Is(err, ErrNoLink) {
			return l, err
		}
		rest := time.Until(deadline)
		if rest <= 0 {
			return l, err
		}
		tv := unix.NsecToTimeval(rest.Nanoseconds() + 1000)
		if err := unix.SetsockoptTimeval(watch.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return l, os.NewSyscallError("setsockopt", err)
		}
		// Whatever it says, the list is read again; it may have been cut short.
		if _, err := watch.receive(); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
			return l, err
		}
	}
}

// Change is what becomes different of an interface; zero fields stay.
type Change struct {
	Name string
	MAC  MAC
	MTU  int
	// Namespace is the network namespace to move to. Its name can change with it.
	Namespace *os.File
	// State is Up or Down.
	State State
}

// State is whether an interface is switched on.
type State int

// The states; the zero State is none.
const (
	Up State = iota + 1
	Down
)

// SetLink changes an interface.
func (c *Conn) SetLink(index int, o Change) error {
	b := make([]byte, linkSize)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	if o.State != 0 {
		if o.State == Up {
			binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP)
		}
		binary.NativeEndian.PutUint32(b[12:], unix.IFF_UP) // which flags change
	}
	if o.Name != "" {
		if len(o.Name) >= unix.IFNAMSIZ {
			return fmt.Errorf("name %.40q of a network interface has more than %d bytes", o.Name, unix.IFNAMSIZ-1)
		}
		b = attribute(b, unix.IFLA_IFNAME, append([]byte(o.Name), 0))
	}
	if o.MAC != (MAC{}) {
		b = attribute(b, unix.IFLA_ADDRESS, o.MAC[:])
	}
	if o.MTU != 0 {
		b = attribute(b, unix.IFLA_MTU, number(uint32(o.MTU)))
	}
	if o.Namespace != nil {
		b = attribute(b, unix.IFLA_NET_NS_FD, number(uint32(o.Namespace.Fd())))
		defer runtime.KeepAlive(o.Namespace)
	}
	return c.do(fmt.Sprintf("change network interface %d", index), unix.RTM_NEWLINK, 0, b, nil)
}

// LoopbackUp switches loopback on.
func (c *Conn) LoopbackUp() error {
	l, err := c.Find(func(l Link) bool { return l.Loopback })
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return c.SetLink(l.Index, Change{State: Up})
}
