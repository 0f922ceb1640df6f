package volume

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// Usage returns how many bytes of the disk a volume takes, see Tree.
func (s *Store) Usage(ctx context.Context, name string) (int64, error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	return Tree(ctx, s.path(name))
}

// maxDepth bounds how deep Tree looks. The kernel itself refuses longer paths,
// but a workload can make a deeper tree step by step.
const maxDepth = 512

// Tree returns how many bytes of the disk the files below a directory take: the
// blocks that are allocated, of a sparse file no more, and those of a file with
// several names once. It follows no link and enters no other file system. What
// vanishes while it looks, and what lies deeper than any path, is not counted.
// A directory that does not exist takes nothing.
func Tree(ctx context.Context, dir string) (int64, error) {
	fd, err := at.OpenDir(at.CWD, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	st, err := at.Fstat(fd)
	if err != nil {
		return 0, err
	}
	c := counter{ctx: ctx, dev: st.Dev, seen: map[uint64]bool{}, bytes: st.Blocks * blockSize}
	err = c.count(f, 0)
	return c.bytes, err
}

// blockSize is the unit of st_blocks (stat(2)).
const blockSize = 512

type counter struct {
	ctx   context.Context
	dev   uint64
	seen  map[uint64]bool // inodes with several names
	bytes int64
}

func (c *counter) count(dir *os.File, depth int) error {
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		names, err := dir.Readdirnames(1024)
		for _, n := range names {
			if err := c.file(dir, n, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *counter) file(dir *os.File, name string, depth int) error {
	st, err := at.Lstat(int(dir.Fd()), name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Dev != c.dev {
		return nil
	}
	if err != nil {
		return err
	}
	directory := st.Mode&at.TypeMask == at.TypeDir
	if !directory && st.Nlink > 1 {
		if c.seen[st.Ino] {
			return nil
		}
		c.seen[st.Ino] = true
	}
	c.bytes += st.Blocks * blockSize
	if !directory || depth >= maxDepth {
		return nil
	}
	fd, err := at.OpenDir(int(dir.Fd()), name)
	if err != nil {
		return nil //nolint:nilerr // it became something else meanwhile
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return c.count(f, depth+1)
}
