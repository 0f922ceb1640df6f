package fake

import (
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// NetNS opens a network namespace that is the instance's own, as those of real
// boundaries are, though no process is in it: all that the host does for a
// workload in networks can be done. It needs root.
func (in *instance) NetNS() (*os.File, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.deleted:
		return nil, workload.ErrNotRunning
	case in.hostNet:
		return nil, workload.ErrUnsupported
	}
	if in.netns == nil {
		var err error
		if in.netns, err = newNetNS(); err != nil {
			return nil, err
		}
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(in.netns.Fd())))
}

// newNetNS makes a network namespace. The thread that does is in it and ends.
func newNetNS() (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		if err = syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			err = os.NewSyscallError("unshare", err)
			return
		}
		f, err = os.Open("/proc/thread-self/ns/net")
	}()
	<-done
	return f, err
}
