// Package fsuid acts on files as somebody else while keeping every capability.
//
// Whoever makes a file in an ID-mapped mount must have an ID that the mount
// knows, or gets EOVERFLOW: the host's root, which is outside of a workload's
// range, can make nothing in its volumes.
package fsuid

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do calls f in a thread of its own, whose new files belong to uid and gid. The
// thread ends with f.
func Do(uid, gid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: nobody else may get this thread
		err := become(uid, gid)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// become changes the calling thread. The kernel takes capabilities from the
// effective set when the file system's user is not root any more
// (capabilities(7)); the permitted set keeps them.
func become(uid, gid int) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	unix.Setfsgid(gid) // both return the old ID and no error
	unix.Setfsuid(uid)
	if now, err := unix.SetfsuidRetUid(-1); err == nil && now != uid {
		return fmt.Errorf("act on files as user %d: %w", uid, unix.EPERM)
	}
	if now, err := unix.SetfsgidRetGid(-1); err == nil && now != gid {
		return fmt.Errorf("act on files as group %d: %w", gid, unix.EPERM)
	}
	head.Pid = 0
	if err := unix.Capset(&head, &caps[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	return nil
}
