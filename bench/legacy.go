package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// unified is where a machine that mixes cgroup v1 and v2 has the latter.
const unified = "/sys/fs/cgroup/unified"

// withoutCgroup2 returns a runner whose commands see a machine of cgroup v1
// only: crun refuses the mixture, and works well on either.
//
// The commands are started by a thread with a mount namespace of its own, in
// which the v2 hierarchy is unmounted, so they cost no more than others. The
// thread ends with the program.
func withoutCgroup2() (runner, error) {
	if _, err := os.Stat(unified + "/cgroup.procs"); err != nil {
		return nil, fmt.Errorf("no mixture of cgroup v1 and v2: %w", err)
	}
	type job struct {
		ctx  context.Context
		args []string
		done func(string, error)
	}
	jobs := make(chan job)
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else may get this thread
		err := hide(unified)
		ready <- err
		if err != nil {
			return
		}
		for j := range jobs {
			j.done(command(j.ctx, j.args...))
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return func(ctx context.Context, args ...string) (out string, err error) {
		done := make(chan struct{})
		jobs <- job{ctx, args, func(o string, e error) { out, err = o, e; close(done) }}
		<-done
		return out, err
	}, nil
}

// hide unmounts a directory for the calling thread alone.
func hide(dir string) error {
	if err := syscall.Unshare(syscall.CLONE_FS | syscall.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare the mount namespace: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make all mounts private: %w", err)
	}
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
