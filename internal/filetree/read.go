package filetree

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// Limits of a tree, on either side.
const (
	// maxDepth bounds the directories of a path below the first, of which one
	// descriptor each is held.
	maxDepth = 512
	// maxPath bounds a path, as PATH_MAX does, in bytes.
	maxPath = 4095
	// maxLinked bounds what is remembered of files with several names, in bytes.
	// The further names of others become files of their own.
	maxLinked = 8 << 20
)

// ErrKernelFiles tells that a path leads into a file system that stores nothing,
// such as /proc.
var ErrKernelFiles = errors.New("it is the kernel's view of the running system and not a stored file")

// ReadOptions say what Read reads.
type ReadOptions struct {
	IDs IDs
	// OneFileSystem leaves out what is mounted below the first directory: an
	// empty directory or file stands in its place.
	OneFileSystem bool
	// Skipped is told what an archive cannot hold; nil drops it.
	Skipped func(name, why string)
}

// Open looks a path up with root as the root directory. With follow a link at its
// end is followed. The descriptor is good for Read and Stat, and the caller's to
// close.
func Open(root int, name string, follow bool) (fd int, err error) {
	if len(name) > maxPath {
		return -1, fmt.Errorf("a path of %d bytes is longer than %d", len(name), maxPath)
	}
	return at.InRoot(root, relative(name), follow)
}

// relative makes a path one from the root directory. It is not cleaned: what ".."
// means behind a link only the links can tell.
func relative(name string) string {
	return cmp.Or(strings.TrimLeft(name, "/"), ".")
}

// Base is the first element of the names in an archive of name: its last
// element, or "." for the content of a directory.
func Base(name string) string {
	base := path.Base(path.Clean("/" + name))
	if base == "/" || name == "." || strings.HasSuffix(name, "/.") {
		return "."
	}
	return base
}

// Read writes what fd stands for, a file or a whole directory, as a tar stream
// to w. The names in it begin with base. What disappears meanwhile is left out.
func Read(ctx context.Context, fd int, base string, o ReadOptions, w io.Writer) error {
	r := &reader{ctx: ctx, o: o, w: tar.NewWriter(w), links: map[inode]*linked{}}
	if r.o.Skipped == nil {
		r.o.Skipped = func(string, string) {}
	}
	st, mount, err := at.StatMount(fd)
	if err != nil {
		return err
	}
	if kernel, err := at.IsKernelFiles(fd); err != nil {
		return err
	} else if kernel {
		return ErrKernelFiles
	}
	if st.Mode&at.TypeMask == at.TypeSocket {
		return errors.New("it is a socket, which an archive cannot hold")
	}
	r.mount = mount
	if err := r.entry(fd, base, st, mount, 0); err != nil {
		return err
	}
	return r.w.Close()
}

type inode struct{ dev, ino uint64 }

// linked is a file with several names, of which one is in the archive.
type linked struct {
	name string
	left uint64 // names that were not seen yet
}

type reader struct {
	ctx    context.Context
	o      ReadOptions
	w      *tar.Writer
	mount  uint64 // of the first file
	links  map[inode]*linked
	linked int // bytes in links
	buf    []byte
}

// entry writes one file, and what is below it.
func (r *reader) entry(fd int, name string, st at.Stat, mount uint64, depth int) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if len(name) > maxPath {
		return fmt.Errorf("the path %.60q… is longer than %d bytes", name, maxPath)
	}
	hdr, err := r.header(fd, name, st)
	if errors.Is(err, errSkipped) {
		r.o.Skipped(name, "a socket")
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case r.o.OneFileSystem && mount != r.mount:
		hdr.Size = 0
		return r.head(hdr)
	case hdr.Typeflag == tar.TypeReg:
		return r.regular(fd, hdr, st)
	case hdr.Typeflag == tar.TypeDir:
		if err := r.head(hdr); err != nil {
			return err
		}
		return r.directory(fd, name, mount, depth)
	}
	return r.head(hdr)
}

// header describes a file. Sockets give errSkipped.
func (r *reader) header(fd int, name string, st at.Stat) (*tar.Header, error) {
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(r.o.IDs.inside(st.Uid)), Gid: int(r.o.IDs.inside(st.Gid)),
		// Whole seconds, or each entry would need a record of its own for the rest.
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	hdr.ModTime = hdr.ModTime.Truncate(time.Second)
	switch st.Mode & at.TypeMask {
	case at.TypeDir:
		hdr.Typeflag, hdr.Name = tar.TypeDir, name+"/"
	case at.TypeRegular:
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	case at.TypeSymlink:
		target, err := at.ReadlinkOf(fd)
		if err != nil {
			return nil, err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, target
		return hdr, nil
	case at.TypeFifo:
		hdr.Typeflag = tar.TypeFifo
	case at.TypeChar, at.TypeBlock:
		hdr.Typeflag = tar.TypeChar
		if st.Mode&at.TypeMask == at.TypeBlock {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(at.Major(st)), int64(at.Minor(st))
	default:
		return nil, errSkipped
	}
	return hdr, r.readXattrs(fd, hdr)
}

func (r *reader) head(hdr *tar.Header) error {
	if err := r.w.WriteHeader(hdr); err != nil {
		return fmt.Errorf("%s: %w", hdr.Name, err)
	}
	return nil
}

// regular writes a file, or a link to where it is in the archive already.
func (r *reader) regular(fd int, hdr *tar.Header, st at.Stat) error {
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if l := r.links[id]; l != nil {
			if l.left--; l.left == 0 {
				r.linked -= len(l.name)
				delete(r.links, id)
			}
			hdr.Typeflag, hdr.Size, hdr.Linkname, hdr.PAXRecords = tar.TypeLink, 0, l.name, nil
			return r.head(hdr)
		}
		if r.linked+len(hdr.Name) <= maxLinked {
			r.linked += len(hdr.Name)
			r.links[id] = &linked{hdr.Name, wide(st.Nlink) - 1}
		}
	}
	file, err := at.ReadRegular(fd)
	if err != nil {
		return fmt.Errorf("%s: %w", hdr.Name, err)
	}
	defer at.Close(file)
	if err := r.head(hdr); err != nil {
		return err
	}
	if err := r.content(file, hdr.Size); err != nil {
		return fmt.Errorf("%s: %w", hdr.Name, err)
	}
	return nil
}

// content writes size bytes of a file: what the header promises, whether it
// grows or shrinks meanwhile. Holes are not read.
func (r *reader) content(file int, size int64) error {
	if r.buf == nil {
		r.buf = make([]byte, Block)
	}
	dataFrom, dataTo := int64(0), int64(0)
	for off := int64(0); off < size; {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if off >= dataTo {
			var err error
			if dataFrom, dataTo, err = at.NextData(file, off); err != nil {
				dataFrom, dataTo = off, size // a file system that knows no holes
			}
		}
		b := r.buf[:min(int64(len(r.buf)), size-off)]
		n := 0
		if off >= dataFrom {
			var err error
			if n, err = at.Pread(file, b, off); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		} else {
			b = b[:min(int64(len(b)), dataFrom-off)]
		}
		clear(b[n:])
		if _, err := r.w.Write(b); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// Block is the unit of reading, and in which zeros are left out of files.
const Block = 128 << 10

// directory writes what is in a directory, in the order of the file system: to
// sort it, all of it would have to be kept.
func (r *reader) directory(fd int, name string, mount uint64, depth int) error {
	if depth >= maxDepth {
		return fmt.Errorf("%.60s…: deeper than %d directories", name, maxDepth)
	}
	dir, err := at.OpenDir(fd, ".")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f := os.NewFile(uintptr(dir), name)
	defer f.Close()
	for {
		names, err := f.Readdirnames(256)
		for _, n := range names {
			full := name + "/" + n
			if name == "." { // as every tool shows an archive's top
				full = n
			}
			if err := r.child(dir, n, full, mount, depth+1); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// child writes one name of a directory.
func (r *reader) child(dir int, name, full string, parent uint64, depth int) error {
	fd, err := at.Look(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	defer at.Close(fd)
	st, mount, err := at.StatMount(fd)
	if err != nil {
		return fmt.Errorf("%s: %w", full, err)
	}
	if mount != parent {
		kernel, err := at.IsKernelFiles(fd)
		if err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
		if kernel {
			return r.covered(fd, full, st)
		}
	}
	return r.entry(fd, full, st, mount, depth)
}

// covered writes an empty directory or file in the place of one that belongs to
// the kernel.
func (r *reader) covered(fd int, name string, st at.Stat) error {
	hdr, err := r.header(fd, name, st)
	if err != nil || hdr.Typeflag != tar.TypeDir && hdr.Typeflag != tar.TypeReg {
		return nil //nolint:nilerr // it is left out
	}
	// What the kernel says of them is not meant for files.
	hdr.Size, hdr.Uid, hdr.Gid, hdr.Mode, hdr.PAXRecords = 0, 0, 0, hdr.Mode&0o555, nil
	return r.head(hdr)
}

// wide widens a number whose size depends on the architecture, as st_nlink's.
func wide[T uint32 | uint64](n T) uint64 { return uint64(n) }
