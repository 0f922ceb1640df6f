package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/runtimespec"
	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

var _ boundary.Files = (*instance)(nil)

// openFiles takes hold of the root directory with what is mounted in it: the
// container's own, or for gVisor, whose mounts are inside of it, the stage's.
func (i *instance) openFiles(p boundary.Prepared) error {
	if i.runtime.Sentry {
		i.root = i.stage.Tree
	} else {
		err := i.first.While(func(pid int) error {
			fd, err := at.LookPath("/proc/"+strconv.Itoa(pid)+"/root", true)
			if err == nil {
				i.root = os.NewFile(uintptr(fd), "root")
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("open the workload's root: %w", notRunning(err))
		}
	}
	i.Tree = &boundary.Tree{
		Open: i.openRoot, IDs: filetree.IDs{Base: p.IDBase, Count: p.IDCount},
		Upper: p.Upper, Layers: p.Layers, Ignore: runtimespec.NotTheirs(i.spec, p),
	}
	if i.spec.Namespaces.HostUser {
		i.Tree.IDs = filetree.IDs{}
	}
	return nil
}

// openRoot is for Tree, and account for whoever reads the image's users.
func (i *instance) openRoot() (fd int, err error) {
	err = i.account(func(root *os.File) error {
		fd, err = at.Duplicate(int(root.Fd()))
		return err
	})
	return fd, err
}

func (i *instance) account(f func(root *os.File) error) error {
	i.alive.RLock()
	defer i.alive.RUnlock()
	if i.stage == nil || i.root == nil {
		return workload.ErrNotRunning
	}
	return f(i.root)
}

// letGo lets go of the mounts. Commands that still used them have ended by now,
// or will in a moment: they were killed.
func (i *instance) letGo() {
	i.alive.Lock()
	defer i.alive.Unlock()
	if i.root != nil && !i.runtime.Sentry { // else it is the stage's
		i.root.Close()
	}
	i.root = nil
	if i.stage != nil {
		i.stage.Close()
		i.stage = nil
	}
}

// ReadArchive is Tree's. Where gVisor has the kernel's files, the stage has none,
// and says the same of them as of those that there are.
func (i *instance) ReadArchive(ctx context.Context, name string, o boundary.ReadOptions, w io.Writer) error {
	err := i.Tree.ReadArchive(ctx, name, o, w)
	if i.runtime.Sentry && errors.Is(err, workload.ErrNoPath) {
		for _, dir := range []string{"/proc/", "/sys/", "/dev/"} {
			if strings.HasPrefix(path.Clean("/"+name), dir) {
				return fmt.Errorf("%s: %w", name, filetree.ErrKernelFiles)
			}
		}
	}
	return err
}
