package container

import (
	"fmt"
	"strconv"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var _ boundary.Files = (*instance)(nil)

// openFiles takes hold of the root directory, in the container's own mounts,
// before the first instruction of the workload: what it mounts later shows, and
// what it makes its own root does not matter. The descriptor keeps the mounts
// until it is closed.
func (i *instance) openFiles(s workload.Spec, p boundary.Prepared) error {
	root, err := at.LookPath("/proc/"+strconv.Itoa(i.Container.Pid)+"/root", true)
	if err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	// A process that has ended gives its ID to others.
	if err := i.Container.Signal(syscall.Signal(0)); err != nil {
		at.Close(root)
		return fmt.Errorf("open the container's root: %w", err)
	}
	i.root = root
	i.Tree = &boundary.Tree{
		Open: func() (int, error) { return at.Duplicate(root) }, IDs: filetree.IDs{Base: p.IDBase, Count: p.IDCount},
		Upper: p.Upper, Layers: p.Layers, Ignore: runtimespec.NotTheirs(s, p),
	}
	if s.Namespaces.HostUser {
		i.Tree.IDs = filetree.IDs{}
	}
	return nil
}

// closeFiles lets go of the mounts.
func (i *instance) closeFiles() {
	if i.Tree == nil {
		return
	}
	i.Tree.Close()
	if i.root >= 0 {
		at.Close(i.root)
		i.root = -1
	}
}
