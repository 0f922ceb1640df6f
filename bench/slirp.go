package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// startSlirp makes a user's namespaces as a rootless engine does, and lets
// slirp4netns stand for the network in them, with the flags that Podman gives it.
// The caller's command lines run in there.
func startSlirp(ctx context.Context) (caller func(...string) []string, stop func() error, err error) {
	program, err := program("slirp4netns", "SLIRP4NETNS")
	if err != nil {
		return nil, nil, err
	}
	inside := exec.Command("unshare", "--user", "--map-root-user", "--net", "--", "sleep", "3600")
	inside.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := inside.Start(); err != nil {
		return nil, nil, err
	}
	end := func(c *exec.Cmd) {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
		c.Wait()                                      //nolint:errcheck // it was killed
	}
	defer func() {
		if err != nil {
			end(inside)
		}
	}()
	pid := strconv.Itoa(inside.Process.Pid)
	if err := apart(ctx, pid); err != nil {
		return nil, nil, err
	}
	slirp := exec.Command(program, "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp",
		"--ready-fd=3", pid, "tap0")
	slirp.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer read.Close()
	slirp.ExtraFiles = []*os.File{write}
	err = slirp.Start()
	write.Close()
	if err != nil {
		return nil, nil, err
	}
	read.SetReadDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // a pipe has deadlines
	if _, err = read.Read(make([]byte, 1)); err != nil {
		end(slirp)
		return nil, nil, fmt.Errorf("slirp4netns does not begin: %w", err)
	}
	caller = func(args ...string) []string {
		return append([]string{"nsenter", "--target", pid, "--user", "--net", "--preserve-credentials", "--"}, args...)
	}
	return caller, func() error { end(slirp); end(inside); return nil }, nil
}

// apart waits until a process that was started is in namespaces of its own.
func apart(ctx context.Context, pid string) error {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	for range 100 {
		theirs, err := os.Readlink("/proc/" + pid + "/ns/net")
		if err != nil {
			return err
		}
		exe, _ := os.Readlink("/proc/" + pid + "/exe")
		if theirs != ours && exe != "" && exe[len(exe)-5:] == "sleep" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("process %s has no network namespace of its own", pid)
}
