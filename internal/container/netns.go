package container

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// NetNS opens the container's own network namespace, from Create until its first
// process has ended.
func (c *Container) NetNS() (*os.File, error) {
	if c.Namespaces&unix.CLONE_NEWNET == 0 {
		return nil, fmt.Errorf("%w: the container has no network namespace of its own", workload.ErrUnsupported)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.pidfd < 0 {
		return nil, workload.ErrNotRunning
	}
	f, err := os.Open("/proc/" + itoa(c.Pid) + "/ns/net")
	if err = gone(c.pidfd, err); err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return f, nil
}
