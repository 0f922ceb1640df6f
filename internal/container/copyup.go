package container

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// planCopyUp fills a new tmpfs with what the directory holds that it is about
// to cover (the mount option tmpcopyup). The kernel charges that to this program
// and not to the container, so the container's memory limit is kept here: a hostile
// image must not take more. Its size, where it has one, is the kernel's to keep.
func (p *planner) planCopyUp(m *plannedMount, loc location) {
	from := p.openInside(loc.path, true)
	if p.copied == nil {
		p.copied = newCopier(p.spec.Linux.Resources)
	}
	p.prog.Go("copy what "+m.dest+" holds into its tmpfs (tmpcopyup)", func(value func(launch.Slot) int) error {
		return p.copied.tree(value(from), value(m.slot), 0)
	}, from, m.slot)
	if below, rel := p.view.lookup(loc.path); below != nil {
		m.inside = subTree{below, rel}
	}
}

// subTree is the part of a tree below a directory.
type subTree struct {
	whole tree
	dir   string
}

func (s subTree) lstat(rel string) (fs.FileMode, string, error) {
	return s.whole.lstat(path.Join(s.dir, rel))
}

// copier copies into the file systems of one container.
type copier struct {
	limit int64 // bytes of memory, 0 for no limit
	taken int64
}

func newCopier(r *specs.LinuxResources) *copier {
	c := new(copier)
	if r == nil {
		return c
	}
	if r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		c.limit = *r.Memory.Limit
	}
	// In force beside the other; "max" is none.
	if n, err := strconv.ParseInt(r.Unified["memory.max"], 10, 64); err == nil && (c.limit == 0 || n < c.limit) {
		c.limit = n
	}
	return c
}

// take counts what is about to be copied.
func (c *copier) take(n int64) error {
	c.taken += n
	if c.limit > 0 && c.taken > c.limit {
		return fmt.Errorf("what is to be copied is more than the container's memory limit of %d bytes", c.limit)
	}
	return nil
}

// counted is a file that is copied.
type counted struct {
	io.Reader
	by *copier
}

func (r counted) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if over := r.by.take(int64(n)); over != nil {
		return 0, over
	}
	return n, err
}

// entrySize is what a file takes besides its content, and what its last page is
// longer than that, at most.
const entrySize = 4096

// maxCopyDepth bounds how many directories tree has open.
const maxCopyDepth = 100

// tree copies directories, regular files, symbolic links and FIFOs with
// their owners and permissions from one directory to another, both held by
// descriptor. Device nodes and sockets are left out, and so are extended
// attributes. No name is followed.
func (c *copier) tree(from, to, depth int) error {
	if depth > maxCopyDepth {
		return fmt.Errorf("directories are nested deeper than %d", maxCopyDepth)
	}
	fd, err := at.OpenDir(from, ".")
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), "directory to copy")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if err := c.entry(fd, to, name, depth); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *copier) entry(from, to int, name string, depth int) error {
	st, err := at.Lstat(from, name)
	if err != nil {
		return err
	}
	if err := c.take(entrySize); err != nil {
		return err
	}
	perm := st.Mode & 0o7777
	switch st.Mode & at.TypeMask {
	case at.TypeDir:
		err = c.directory(from, to, name, depth)
	case at.TypeRegular:
		err = c.file(from, to, name)
	case at.TypeFifo:
		err = at.Mknod(to, name, at.TypeFifo, 0o600, 0, 0)
	case at.TypeSymlink:
		target, err := at.Readlink(from, name)
		if err == nil {
			err = at.Symlink(target, to, name)
		}
		if err != nil {
			return err
		}
		return at.Chown(to, name, int(st.Uid), int(st.Gid))
	default:
		return nil
	}
	if err != nil {
		return err
	}
	// The owner first: chown clears setuid.
	if err := at.Chown(to, name, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return at.Chmod(to, name, perm)
}

func (c *copier) directory(from, to int, name string, depth int) error {
	if err := at.Mkdir(to, name, 0o700); err != nil {
		return err
	}
	source, err := at.OpenDir(from, name)
	if err != nil {
		return err
	}
	defer at.Close(source) //nolint:errcheck // only read
	target, err := at.OpenDir(to, name)
	if err != nil {
		return err
	}
	defer at.Close(target) //nolint:errcheck // a directory
	return c.tree(source, target, depth+1)
}

func (c *copier) file(from, to int, name string) error {
	in, err := at.OpenFile(from, name)
	if err != nil {
		return err
	}
	source := os.NewFile(uintptr(in), name)
	defer source.Close()
	out, err := at.Create(to, name, 0o600)
	if err != nil {
		return err
	}
	target := os.NewFile(uintptr(out), name)
	_, err = io.Copy(target, counted{source, c})
	if err2 := target.Close(); err == nil {
		err = err2
	}
	return err
}
