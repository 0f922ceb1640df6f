package pid1

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// await calls look until it reports true, each time after the kernel has
// announced a device, and fails after limit. Drivers probe in the background,
// so a device may come any time after its module was loaded.
func await(limit time.Duration, look func() (bool, error)) error {
	if found, err := look(); found || err != nil {
		return err
	}
	events, err := openUevents()
	if err != nil {
		return err
	}
	defer events.Close()
	if err := events.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return fmt.Errorf("wait for a device: %w", err)
	}
	buf := make([]byte, 8192)
	for {
		// Also before the first read: it may have come before the socket.
		if found, err := look(); found || err != nil {
			return err
		}
		// What the event says does not matter. ENOBUFS: some were lost.
		if _, err := events.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
}

// openUevents opens a socket on which the kernel announces devices, as udev
// does (lib/kobject_uevent.c).
func openUevents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, os.NewSyscallError("socket NETLINK_KOBJECT_UEVENT", err)
	}
	const kernelGroup = 1
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind NETLINK_KOBJECT_UEVENT", err)
	}
	return os.NewFile(uintptr(fd), "uevents"), nil
}
