package container

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// NetNS opens the container's own network namespace, from Create until its first
// process has ended.
func (c *Container) NetNS() (*os.File, error) {
	if c.Namespaces&unix.CLONE_NEWNET == 0 {
		return nil, fmt.Errorf("%w: the container has no network namespace of its own", workload.ErrUnsupported)
	}
	return c.openNamespace(specs.NetworkNamespace)
}

// openNamespace opens a namespace of the first process.
func (c *Container) openNamespace(t specs.LinuxNamespaceType) (*os.File, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.pidfd < 0 {
		return nil, workload.ErrNotRunning
	}
	f, err := os.Open("/proc/" + itoa(c.Pid) + "/ns/" + namespaceFile(t))
	if err = gone(c.pidfd, err); err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return f, nil
}

// namespaceFile is the name of a namespace in /proc/PID/ns, see namespaces(7).
func namespaceFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}
