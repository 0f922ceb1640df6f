package extract

import (
	"context"
	"errors"
	"io"
	"math"
	"path"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// copyBuffer is the piece in which content is copied, in bytes.
const copyBuffer = 256 << 10

// fileID tells files of the layers apart.
type fileID struct {
	layer int
	ino   uint64
}

// copier copies one directory of a union. Where it writes nobody else does yet.
type copier struct {
	ctx    context.Context
	union  *union
	root   int // where the copy begins
	budget *Budget
	links  map[fileID]string // files with several names: the path of the first, from root
	buf    []byte
}

// dir copies what is in a directory, then its attributes: making files changes
// its times, and a default access control list would change the files. where is
// the path of to from root.
func (c *copier) dir(m *merged, to int, where string) error {
	names, err := c.union.names(m, c.budget)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		f, err := c.union.lookup(m, name)
		if err != nil {
			return err
		}
		if f == nil {
			continue // hidden by a whiteout
		}
		if err := c.budget.file(); err != nil {
			return err
		}
		if f.dir != nil {
			err = c.subdir(f, to, name, path.Join(where, name))
		} else {
			err = c.file(m, f, to, name, path.Join(where, name))
		}
		if err != nil {
			return err
		}
	}
	src, err := c.union.open(m, m.layers[0])
	if err != nil {
		return err
	}
	defer at.Close(src)
	st, err := at.Fstat(src)
	if err != nil {
		return err
	}
	return attributes(src, ".", st, to)
}

func (c *copier) subdir(f *file, to int, name, where string) error {
	if err := at.Mkdir(to, name, 0o700); err != nil {
		return err
	}
	fd, err := at.OpenDir(to, name)
	if err != nil {
		return err
	}
	defer at.Close(fd)
	return c.dir(f.dir, fd, where)
}

// file copies what is no directory.
func (c *copier) file(m *merged, f *file, to int, name, where string) error {
	id := fileID{f.layer, f.st.Ino}
	if f.st.Nlink > 1 {
		if first, ok := c.links[id]; ok {
			return c.link(first, to, name)
		}
	}
	src, err := c.union.open(m, f.layer)
	if err != nil {
		return err
	}
	defer at.Close(src)
	switch f.st.Mode & at.TypeMask {
	case at.TypeRegular:
		err = c.regular(src, f.st, to, name)
	case at.TypeSymlink:
		err = symlink(src, f.st, to, name)
	default:
		err = special(f.st, to, name)
	}
	if err == nil && f.st.Nlink > 1 {
		c.links[id] = where
	}
	return err
}

// link gives a file that was copied another name.
func (c *copier) link(first string, to int, name string) error {
	dir, err := at.OpenDirBelow(c.root, path.Dir(first))
	if err != nil {
		return err
	}
	defer at.Close(dir)
	return at.Link(dir, path.Base(first), to, name)
}

func (c *copier) regular(dir int, st at.Stat, to int, name string) error {
	src, err := at.OpenFile(dir, name)
	if err != nil {
		return err
	}
	defer at.Close(src)
	dst, err := at.Create(to, name, 0o600)
	if err != nil {
		return err
	}
	defer at.Close(dst)
	if err := c.content(src, dst, st.Size); err != nil {
		return err
	}
	return attributes(dir, name, st, dst)
}

// content copies what is no hole.
func (c *copier) content(src, dst int, size int64) error {
	for off := int64(0); off < size; {
		start, end, err := at.NextData(src, off)
		if err != nil {
			return err
		}
		if start == math.MaxInt64 {
			break
		}
		for off = start; off < min(end, size); {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			p := c.buf[:min(int64(len(c.buf)), min(end, size)-off)]
			n, err := at.Pread(src, p, off)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if n == 0 {
				break
			}
			if err := c.budget.bytes(int64(n)); err != nil {
				return err
			}
			if err := at.Pwrite(dst, p[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
		off = max(off, min(end, size))
	}
	return at.Truncate(dst, size)
}

func symlink(dir int, st at.Stat, to int, name string) error {
	target, err := at.Readlink(dir, name)
	if err != nil {
		return err
	}
	if err := at.Symlink(target, to, name); err != nil {
		return err
	}
	if err := at.Chown(to, name, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return at.Chtimes(to, name, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

// special makes a device, FIFO or socket. Every mount of a volume is nodev, so
// a device is a name and no more.
func special(st at.Stat, to int, name string) error {
	if err := at.Mknod(to, name, st.Mode&at.TypeMask, 0o600, at.Major(st), at.Minor(st)); err != nil {
		return err
	}
	if err := at.Chown(to, name, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := at.Chmod(to, name, st.Mode&0o7777); err != nil {
		return err
	}
	return at.Chtimes(to, name, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

// attributes gives an open file what another has. Owners first: chown clears
// setuid bits and capabilities.
func attributes(dir int, name string, st at.Stat, dst int) error {
	if err := at.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	names, err := at.Llistxattr(dir, name)
	if err != nil {
		return err
	}
	for _, n := range names {
		if !filetree.KeepXattr(n) {
			continue
		}
		value, err := at.Lgetxattr(dir, name, n)
		if err != nil {
			return err
		}
		if err := at.Fsetxattr(dst, n, value); err != nil {
			return err
		}
	}
	if err := at.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	return at.Ftimes(dst, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}
