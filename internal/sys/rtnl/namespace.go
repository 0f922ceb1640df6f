package rtnl

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// In calls f on a thread in the network namespace ns, or as it is if ns is nil.
// What f does with network interfaces, and with /proc/sys/net, it does there. f
// must not start goroutines that do.
func In(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// The thread is given up unless it can be brought back.
		runtime.LockOSThread()
		err, back := enter(ns, f)
		if back {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func enter(ns *os.File, f func() error) (err error, back bool) {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("network namespace: %w", err), true
	}
	defer own.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a network namespace: %w", os.NewSyscallError("setns", err)), true
	}
	runtime.KeepAlive(ns)
	err = f()
	if rerr := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); rerr != nil {
		return errors.Join(err, fmt.Errorf("leave a network namespace: %w", os.NewSyscallError("setns", rerr))), false
	}
	return err, true
}

// Make returns a new network namespace. It lasts as long as it is open, or
// something is in it.
func Make() (*os.File, error) {
	var ns *os.File
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			err = fmt.Errorf("make a network namespace: %w", os.NewSyscallError("unshare", err))
		} else {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	return ns, <-done
}
