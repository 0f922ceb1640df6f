package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// WriteTree writes the directory dir, such as a mounted root file system, as a
// tar: owners, modes, times with nanoseconds, hard links, devices, extended
// attributes. Sockets are left out, as tar has none; so are attributes that
// belong to overlayfs or to the host's security modules. No link is followed.
//
// dir must be opened for reading. A file that changes its size while it is
// written gives an error.
func WriteTree(ctx context.Context, w io.Writer, dir *os.File) error {
	t := &treeWriter{ctx: ctx, w: tar.NewWriter(w), links: make(map[inode]string)}
	if err := t.dir(int(dir.Fd()), "."); err != nil {
		return err
	}
	return t.w.Close()
}

type inode struct{ dev, ino uint64 }

type treeWriter struct {
	ctx   context.Context
	w     *tar.Writer
	links map[inode]string
}

func (t *treeWriter) dir(fd int, path string) error {
	st, err := at.Fstat(fd)
	if err != nil {
		return err
	}
	hdr, err := header(fd, ".", path+"/", st)
	if err != nil {
		return err
	}
	if err := t.w.WriteHeader(hdr); err != nil {
		return err
	}
	own, err := at.OpenDir(fd, ".") // an offset of its own
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(own), path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, name := range names {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if err := t.entry(fd, name, path+"/"+name); err != nil {
			return fmt.Errorf("%q: %w", path+"/"+name, err)
		}
	}
	return nil
}

func (t *treeWriter) entry(dir int, name, path string) error {
	st, err := at.Lstat(dir, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	switch st.Mode & at.TypeMask {
	case at.TypeDir:
		fd, err := at.OpenDir(dir, name)
		if err != nil {
			return err
		}
		defer at.Close(fd)
		return t.dir(fd, path)
	case at.TypeSocket:
		return nil
	}
	hdr, err := header(dir, name, path, st)
	if err != nil {
		return err
	}
	if st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := t.links[key]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
			return t.w.WriteHeader(hdr)
		}
		t.links[key] = path
	}
	if hdr.Typeflag != tar.TypeReg {
		return t.w.WriteHeader(hdr)
	}
	fd, err := at.OpenFile(dir, name)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := t.w.WriteHeader(hdr); err != nil {
		return err
	}
	n, err := io.Copy(t.w, io.LimitReader(f, hdr.Size))
	if err == nil && n < hdr.Size {
		err = errors.New("the file shrank while it was read")
	}
	return err
}

func header(dir int, name, path string, st at.Stat) (*tar.Header, error) {
	hdr := &tar.Header{
		Format: tar.FormatPAX, Name: path, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	switch st.Mode & at.TypeMask {
	case at.TypeDir:
		hdr.Typeflag = tar.TypeDir
	case at.TypeRegular:
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	case at.TypeSymlink:
		target, err := at.Readlink(dir, name)
		if err != nil {
			return nil, err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, target
	case at.TypeFifo:
		hdr.Typeflag = tar.TypeFifo
	case at.TypeChar, at.TypeBlock:
		hdr.Typeflag = tar.TypeChar
		if st.Mode&at.TypeMask == at.TypeBlock {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(at.Major(st)), int64(at.Minor(st))
	}
	names, err := at.Llistxattr(dir, name)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if strings.HasPrefix(n, "trusted.") || strings.HasPrefix(n, "security.") && n != "security.capability" {
			continue
		}
		v, err := at.Lgetxattr(dir, name, n)
		if err != nil {
			return nil, err
		}
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = make(map[string]string)
		}
		hdr.PAXRecords["SCHILY.xattr."+n] = string(v)
	}
	return hdr, nil
}
