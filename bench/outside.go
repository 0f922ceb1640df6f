package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// A host outside is a network namespace at the other end of a pair of interfaces,
// which are the only way out of the benchmark's:
//
//	workloads ── bridges, processes ── bench0 ═══ bench0 ── bulkhead-meter
//	             the benchmark's namespace        outside
//
// The addresses are of a network that is nobody's (RFC 5737).
type outside struct {
	ns *os.File
}

const (
	benchAddress   = "198.51.100.1"
	outsideAddress = "198.51.100.2"
)

// makeOutside makes it and the default route there, which networks without a
// bridge look for.
//
// The benchmark's namespace forwards from the beginning, as a host does that has
// run containers before. Docker would switch it on otherwise, and set the policy of
// the chain FORWARD to drop: Podman's CNI plugins accept what comes from a workload
// and answers to it, and leave what comes in by a published port to that policy.
func makeOutside(ctx context.Context) (_ *outside, err error) {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return nil, err
	}
	o := &outside{}
	if o.ns, err = newNamespace(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			o.ns.Close()
		}
	}()
	return o, runner(command).all(ctx,
		[]string{"ip", "link", "add", "bench0", "type", "veth", "peer", "name", "bench0", "netns", o.path()},
		[]string{"ip", "addr", "add", benchAddress + "/24", "dev", "bench0"},
		[]string{"ip", "link", "set", "bench0", "up"},
		o.in("ip", "link", "set", "lo", "up"),
		o.in("ip", "addr", "add", outsideAddress+"/24", "dev", "bench0"),
		o.in("ip", "link", "set", "bench0", "up"),
		[]string{"ip", "route", "add", "default", "via", outsideAddress})
}

// path names the namespace for other processes.
func (o *outside) path() string {
	return filepath.Join("/proc", fmt.Sprint(os.Getpid()), "fd", fmt.Sprint(o.ns.Fd()))
}

// in is a command line that runs there.
func (o *outside) in(args ...string) []string {
	return append([]string{"nsenter", "--net=" + o.path(), "--"}, args...)
}

func (o *outside) close() error { return o.ns.Close() }

// newNamespace makes a network namespace that its descriptor keeps.
func newNamespace() (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with its goroutine
		if err = syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			err = os.NewSyscallError("unshare", err)
			return
		}
		f, err = os.Open("/proc/thread-self/ns/net")
	}()
	<-done
	if err != nil {
		return nil, errors.Join(errors.New("make a network namespace"), err)
	}
	return f, nil
}
