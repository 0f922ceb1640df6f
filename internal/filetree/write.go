package filetree

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/fsuid"
)

// ErrMalformed is wrapped by everything in an archive that no honest tool
// writes.
var ErrMalformed = errors.New("malformed or hostile archive")

// WriteOptions say how Write unpacks.
type WriteOptions struct {
	IDs IDs
	// Owners keeps the owners that the archive names; otherwise all belongs to the
	// workload's root, or without IDs to whoever unpacks.
	Owners bool
	// NoOverwriteDir refuses to replace a directory by something else, or something
	// else by a directory.
	NoOverwriteDir bool
	// Within is the first element that every name must have, "" or "." for any.
	// As takes its place, "" to leave the names as they are.
	Within, As string
	// Whole says that the directory is the root of all that its owner sees, so
	// that absolute links in it lead somewhere.
	Whole bool
	// Host says that this is not a workload's tree, where what a workload can make
	// means more than inside: without Owners setuid and setgid bits are dropped,
	// and capabilities always. No link is followed there: Read writes no name below
	// one, so an archive that has such a name is hostile.
	Host bool
	// Skipped is told what is not made; without it that is an error.
	Skipped func(name, why string) error
}

// Write unpacks a tar stream below dir, a descriptor of a directory. Directories
// that exist keep their attributes, unless Owners is set; everything else is
// replaced.
func Write(ctx context.Context, dir int, o WriteOptions, r io.Reader) error {
	u := &unpacker{ctx: ctx, o: o}
	work := func() error {
		defer u.close()
		return u.run(dir, r)
	}
	if o.IDs.Count > 0 {
		return fsuid.Do(int(o.IDs.Base), int(o.IDs.Base), work)
	}
	return work()
}

type unpacker struct {
	ctx   context.Context
	o     WriteOptions
	dest  int
	stack []level
	buf   []byte
}

func (u *unpacker) run(dir int, r io.Reader) error {
	fd, err := at.OpenDir(dir, ".")
	if err != nil {
		return err
	}
	u.dest = fd
	u.stack = append(u.stack, level{fd: fd})
	u.buf = make([]byte, Block)
	t := tar.NewReader(r)
	for {
		hdr, err := t.Next()
		if err == io.EOF { //nolint:errorlint // returned bare
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if err := u.ctx.Err(); err != nil {
			return err
		}
		if err := u.entry(hdr, t); err != nil {
			return fmt.Errorf("%s: %w", shown(hdr.Name), archiveError(err))
		}
	}
	if err := u.leave(0); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, Until(u.ctx, r)) // the padding, which whoever sends waits to get rid of
	return err
}

// Until returns a reader of r that fails with the context's error once ctx is done. It
// looks before each Read, and waits for r in it.
func Until(ctx context.Context, r io.Reader) io.Reader { return untilReader{ctx, r} }

type untilReader struct {
	ctx context.Context
	r   io.Reader
}

func (u untilReader) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// archiveError says what package tar's errors mean.
func archiveError(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it ends in the middle, or is no tar archive", ErrMalformed)
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("%w: it is no tar archive, or damaged", ErrMalformed)
	}
	return err
}

// shown is a name of the archive in an error.
func shown(name string) string {
	if len(name) > 100 {
		name = name[:100] + "…"
	}
	return fmt.Sprintf("%q", name)
}

// components splits a name of the archive. A leading slash is dropped, as every
// tar does; ".." is refused, because none writes it.
func components(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, fmt.Errorf("%w: a path longer than %d bytes", ErrMalformed, maxPath)
	}
	var comps []string
	for c := range strings.SplitSeq(name, "/") {
		switch {
		case c == "" || c == ".":
			continue
		case c == "..":
			return nil, fmt.Errorf("%w: the path leaves its directory", ErrMalformed)
		case len(c) > 255:
			return nil, fmt.Errorf("%w: a name longer than 255 bytes", ErrMalformed)
		case strings.ContainsRune(c, 0):
			return nil, fmt.Errorf("%w: a name with a zero byte", ErrMalformed)
		}
		if comps = append(comps, c); len(comps) > maxDepth {
			return nil, fmt.Errorf("%w: deeper than %d directories", ErrMalformed, maxDepth)
		}
	}
	return comps, nil
}

// place is where a name of the archive leads.
func (u *unpacker) place(name string) ([]string, error) {
	comps, err := components(name)
	if err != nil {
		return nil, err
	}
	if u.o.Within != "" && u.o.Within != "." {
		if len(comps) == 0 || comps[0] != u.o.Within {
			return nil, fmt.Errorf("%w: it was not asked for", ErrMalformed)
		}
		comps = comps[1:]
		first := u.o.As
		if first == "" {
			first = u.o.Within
		}
		return append([]string{first}, comps...), nil
	}
	if u.o.As != "" {
		return append([]string{u.o.As}, comps...), nil
	}
	return comps, nil
}

// entry makes what one header describes.
func (u *unpacker) entry(hdr *tar.Header, content io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil // "git archive" writes a comment this way
	}
	comps, err := u.place(hdr.Name)
	if err != nil {
		return err
	}
	a, err := u.attributes(hdr)
	if err != nil {
		return err
	}
	if len(comps) == 0 {
		if hdr.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: a file where the directory itself belongs", ErrMalformed)
		}
		return u.leave(0)
	}
	parent, err := u.enter(comps[:len(comps)-1])
	if err != nil {
		return err
	}
	name := comps[len(comps)-1]
	switch hdr.Typeflag {
	case tar.TypeDir:
		return u.directory(parent, name, a)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.regular(parent, name, a, content)
	case tar.TypeSymlink:
		return u.symlink(parent, name, a)
	case tar.TypeLink:
		return u.link(parent, name, hdr.Linkname)
	case tar.TypeFifo:
		if err := u.make(parent, name, func() error { return at.Mknod(parent, name, at.TypeFifo, 0o600, 0, 0) }); err != nil {
			return err
		}
		return u.special(parent, name, a)
	case tar.TypeChar, tar.TypeBlock:
		return u.skip(hdr.Name, "a device, which is not made by a copy")
	}
	return u.skip(hdr.Name, fmt.Sprintf("an entry of the unknown type %q", string(rune(hdr.Typeflag))))
}

func (u *unpacker) skip(name, why string) error {
	if u.o.Skipped == nil {
		return fmt.Errorf("%w: %s", errors.ErrUnsupported, why)
	}
	return u.o.Skipped(name, why)
}

// races bounds how often a name is cleared that somebody else takes again.
const races = 64

// make calls create, after clearing the name if it is taken.
func (u *unpacker) make(dir int, name string, create func() error) error {
	err := create()
	for n := 0; errors.Is(err, fs.ErrExist) && n < races; n++ {
		if err = u.clear(dir, name); err == nil {
			err = create()
		}
	}
	return err
}

// clear removes what has a name.
func (u *unpacker) clear(dir int, name string) error {
	st, err := at.Lstat(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !at.IsDir(st) {
		err := at.Remove(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if u.o.NoOverwriteDir {
		return errors.New("cannot overwrite a directory with something else")
	}
	return at.RemoveAll(dir, name)
}

// maxSparse bounds the size of a file whose holes the archive does not store, in
// bytes: such a file can make a few bytes of archive the work of years.
const maxSparse = 1 << 40

func sparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (u *unpacker) regular(dir int, name string, a *attributes, content io.Reader) error {
	if sparse(a.hdr) && a.hdr.Size > maxSparse {
		return fmt.Errorf("%w: a sparse file of more than %d bytes", ErrMalformed, int64(maxSparse))
	}
	file := -1
	err := u.make(dir, name, func() (err error) {
		file, err = at.Create(dir, name, 0o600)
		return err
	})
	mounted := errors.Is(err, syscall.EBUSY)
	if mounted {
		// A file that is a mount, such as /etc/hosts, cannot be replaced, only
		// written to.
		file, err = overwrite(dir, name)
	}
	if err != nil {
		return err
	}
	defer at.Close(file)
	if err := Fill(file, a.hdr.Size, Until(u.ctx, content), u.buf); err != nil {
		return err
	}
	if mounted {
		return nil
	}
	if err := u.applyOpen(file, a); err != nil {
		return err
	}
	return at.Ftimes(file, times(a.hdr), times(a.hdr))
}

func overwrite(dir int, name string) (int, error) {
	fd, err := at.Look(dir, name)
	if err != nil {
		return -1, err
	}
	defer at.Close(fd)
	return at.WriteRegular(fd)
}

// Fill writes size bytes of content to an empty file. Blocks of zeros, as long
// as buf, become holes, so that a file of zeros costs no disk.
func Fill(file int, size int64, content io.Reader, buf []byte) error {
	hole := false
	for off := int64(0); off < size; {
		b := buf[:min(int64(len(buf)), size-off)]
		if _, err := io.ReadFull(content, b); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if hole = len(b) == len(buf) && allZero(b); !hole {
			if err := at.Pwrite(file, b, off); err != nil {
				return err
			}
		}
		off += int64(len(b))
	}
	if hole {
		return at.Truncate(file, size)
	}
	return nil
}

// allZero compares b with itself, shifted by one.
func allZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[:len(b)-1], b[1:])
}

func (u *unpacker) symlink(dir int, name string, a *attributes) error {
	target := a.hdr.Linkname
	if target == "" || strings.ContainsRune(target, 0) || len(target) > maxPath {
		return fmt.Errorf("%w: a symbolic link to nothing, or too long", ErrMalformed)
	}
	if err := u.make(dir, name, func() error { return at.Symlink(target, dir, name) }); err != nil {
		return err
	}
	return u.applyName(dir, name, a)
}

// special gives a FIFO its attributes.
func (u *unpacker) special(dir int, name string, a *attributes) error {
	if a.uid >= 0 {
		if err := at.Chown(dir, name, a.uid, a.gid); err != nil {
			return err
		}
	}
	fd, err := at.Look(dir, name)
	if err != nil {
		return err
	}
	defer at.Close(fd)
	if st, err := at.Fstat(fd); err != nil || st.Mode&at.TypeMask != at.TypeFifo {
		return err // it is somebody else's by now
	}
	if err := at.ChmodOf(fd, a.mode); err != nil {
		return err
	}
	return at.Chtimes(dir, name, times(a.hdr), times(a.hdr))
}

// link makes another name for a file of the directory.
func (u *unpacker) link(dir int, name, target string) error {
	comps, err := u.place(target)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", shown(target), err)
	}
	if len(comps) == 0 {
		return fmt.Errorf("%w: a hard link to a directory", ErrMalformed)
	}
	last := len(comps) - 1
	from, err := u.beneath(comps[:last])
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", shown(target), err)
	}
	defer at.Close(from)
	st, err := at.Lstat(from, comps[last])
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", shown(target), err)
	}
	if there, err := at.Lstat(dir, name); err == nil && there.Dev == st.Dev && there.Ino == st.Ino {
		return nil // it is that file already
	}
	return u.make(dir, name, func() error { return at.Link(from, comps[last], dir, name) })
}

// times is an entry's time, the epoch where it has none.
func times(hdr *tar.Header) time.Time {
	if hdr.ModTime.IsZero() {
		return time.Unix(0, 0)
	}
	return hdr.ModTime
}
