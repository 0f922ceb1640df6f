package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
)

// files is what a layout or an archive consists of. Names are the archive's
// own words: they select an entry and are never used as paths of this host.
type files interface {
	// open returns a regular file and its size; errors wrap fs.ErrNotExist.
	open(name string) (io.ReadCloser, int64, error)
	Close() error
}

// dirFiles is a directory. os.Root keeps links in it from leading out.
type dirFiles struct{ root *os.Root }

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func (d dirFiles) Close() error { return d.root.Close() }

// tarFiles finds the files of an archive by where they lie in it, so nothing
// is extracted and layers can be read side by side.
type tarFiles struct {
	f     *os.File
	index map[string]tarFile
}

type tarFile struct {
	offset, size int64
	link         string // of a symbolic link: the name it means
}

// Bounds of an archive of images. An archive has one entry for each blob and,
// in Docker's old form, three for each layer.
const (
	maxFiles      = 10_000
	maxNameLength = 512
)

// indexTar reads the headers of an archive.
func indexTar(f *os.File, size int64) (*tarFiles, error) {
	section := io.NewSectionReader(f, 0, size)
	tr := tar.NewReader(section)
	t := &tarFiles{f: f, index: make(map[string]tarFile)}
	for n := 0; ; n++ {
		hdr, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF):
			return t, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("%w: the archive ends in the middle", unpack.ErrTruncated)
		case err != nil:
			return nil, fmt.Errorf("%w: not a tar archive: %w", ErrFormat, err)
		case n >= maxFiles:
			return nil, fmt.Errorf("%w: more than %d files in an archive of images", unpack.ErrLimit, maxFiles)
		case len(hdr.Name) > maxNameLength || len(hdr.Linkname) > maxNameLength:
			return nil, fmt.Errorf("%w: a name longer than %d bytes in an archive of images", unpack.ErrLimit, maxNameLength)
		}
		offset, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		name := clean(hdr.Name)
		switch hdr.Typeflag {
		case tar.TypeReg:
			if hdr.PAXRecords["GNU.sparse.major"] != "" || hdr.PAXRecords["GNU.sparse.size"] != "" || offset+hdr.Size > size {
				return nil, fmt.Errorf("%w: %q is sparse or truncated", ErrFormat, hdr.Name)
			}
			t.index[name] = tarFile{offset: offset, size: hdr.Size}
		case tar.TypeSymlink: // docker save of old wrote equal layers as links
			t.index[name] = tarFile{link: clean(path.Join(path.Dir(name), hdr.Linkname))}
		case tar.TypeLink:
			t.index[name] = tarFile{link: clean(hdr.Linkname)}
		}
	}
}

// clean is one spelling for each name; ".." at the top stays at the top.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	name = clean(name)
	for range 8 {
		e, ok := t.index[name]
		if !ok {
			break
		}
		if e.link == "" {
			return io.NopCloser(io.NewSectionReader(t.f, e.offset, e.size)), e.size, nil
		}
		name = e.link
	}
	return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (t *tarFiles) Close() error { return t.f.Close() }
