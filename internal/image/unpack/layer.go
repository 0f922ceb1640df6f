// Package unpack writes the files of one image layer into a directory, in the
// form that overlayfs stacks: a removed file is a character device 0:0, a
// directory that hides what lies below carries an "opaque" attribute (OCI
// image-spec, layer.md; Linux, filesystems/overlayfs.rst).
//
// Layers are hostile. The package keeps its own tree of the directories that
// it made and reaches every file as one name in an open directory, so the
// kernel never walks a path that the layer wrote. Links in the middle of a
// path are resolved by the package, within the root. Nothing is ever opened
// that it has not just created.
package unpack

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// OpaqueXattr marks a directory that hides the lower layers. Overlayfs mounted
// without the "userxattr" option looks for this name.
const OpaqueXattr = "trusted.overlay.opaque"

// Options of Layer.
type Options struct {
	Limits Limits
	Budget *Budget // of the image; nil for none
	// Progress is told how many bytes of the uncompressed archive were read,
	// now and then. May be nil.
	Progress func(bytes int64)
}

// Result says what a layer was.
type Result struct {
	DiffID  digest.Digest // SHA-256 of the uncompressed archive
	Bytes   int64         // sum of the sizes of its regular files
	Entries int
	// Implied lists directories that entries lie in but that have no entry of
	// their own, parents first. They were made with mode 0755 and owner 0:0;
	// in an image their attributes are those of the layer below.
	Implied []string
	// RootOpaque is set when the layer hides every lower layer. Overlayfs
	// does not look for the mark on the roots of layers.
	RootOpaque bool
}

// Layer unpacks the archive r, plain or compressed with gzip or zstd, into the
// empty directory root. r is read to its end: the digest covers all of it.
//
// On an error the directory holds a part of the layer and nothing outside was
// touched; the caller removes it. Nothing is synced to the disk.
//
// Preconditions: root is on a file system with extended attributes; nobody
// else writes below it; the caller may make devices and change owners.
func Layer(ctx context.Context, root *os.File, r io.Reader, opts Options) (Result, error) {
	limits := opts.Limits.withDefaults()
	stream := newPlainStream(ctx, r, limits)
	defer stream.Close()
	u := &unpacker{limits: limits, budget: opts.Budget, tree: newTree(root, limits), buf: make([]byte, holeSize)}
	defer u.tree.close()
	defer runtime.KeepAlive(root)

	in := bufio.NewReaderSize(stream, 64<<10)
	counted := &progressReader{r: in, report: opts.Progress}
	if err := u.entries(ctx, tar.NewReader(counted)); err != nil {
		return Result{}, err
	}
	// What follows the end mark belongs to the digest as well.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return Result{}, streamError(err)
	}
	if err := u.tree.finish(); err != nil {
		return Result{}, err
	}
	sum := digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(stream.sum.Sum(nil)))
	return Result{
		DiffID: sum, Bytes: u.bytes, Entries: u.count,
		Implied: u.tree.implied(), RootOpaque: u.tree.root.opaque,
	}, nil
}

type progressReader struct {
	r      io.Reader
	report func(int64)
	n      int64
	last   int64
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	if p.report != nil && (p.n-p.last >= 1<<20 || err != nil) {
		p.last = p.n
		p.report(p.n)
	}
	return n, err
}

type unpacker struct {
	limits Limits
	budget *Budget
	tree   *tree
	buf    []byte
	bytes  int64
	count  int
}

func (u *unpacker) entries(ctx context.Context, tr *tar.Reader) error {
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
				return fmt.Errorf("%w: entry %d: not a tar header", ErrHostile, u.count)
			}
			return streamError(err)
		}
		if u.count++; u.count > u.limits.Entries {
			return fmt.Errorf("%w: more than %d entries", ErrLimit, u.limits.Entries)
		}
		if u.count%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("entry %s: %w", quote(hdr.Name), streamError(err))
		}
	}
}

// entry makes what one header describes. Later entries replace earlier ones of
// the same name; a directory stays when both are directories.
func (u *unpacker) entry(hdr *tar.Header, content io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil // "git archive" writes a comment this way
	}
	comps, err := u.components(hdr.Name)
	if err != nil {
		return err
	}
	m, err := u.meta(hdr)
	if err != nil {
		return err
	}
	if len(comps) == 0 {
		if hdr.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root of the layer is no directory", ErrHostile)
		}
		u.tree.root.meta = m
		return nil
	}
	parent, err := u.tree.dir(comps[:len(comps)-1])
	if err != nil {
		return err
	}
	name := comps[len(comps)-1]
	if rest, ok := strings.CutPrefix(name, whiteoutPrefix); ok {
		return u.whiteout(parent, rest, hdr)
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		return u.tree.mkdir(parent, name, m)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.regular(parent, name, m, hdr, content)
	case tar.TypeSymlink:
		return u.symlink(parent, name, m, hdr.Linkname)
	case tar.TypeLink:
		return u.hardlink(parent, name, hdr.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.special(parent, name, m, hdr)
	}
	return fmt.Errorf("%w: unknown entry type %q", ErrHostile, string(rune(hdr.Typeflag)))
}

// components splits a path of the archive. A leading slash is dropped, as
// every tar does; ".." is refused, because no tool writes it.
func (u *unpacker) components(path string) ([]string, error) {
	if len(path) > u.limits.PathBytes {
		return nil, fmt.Errorf("%w: a path longer than %d bytes", ErrLimit, u.limits.PathBytes)
	}
	var comps []string
	for c := range strings.SplitSeq(path, "/") {
		switch {
		case c == "" || c == ".":
			continue
		case c == "..":
			return nil, fmt.Errorf("%w: the path leaves the layer", ErrHostile)
		case len(c) > 255:
			return nil, fmt.Errorf("%w: a name longer than 255 bytes", ErrLimit)
		case strings.ContainsRune(c, 0):
			return nil, fmt.Errorf("%w: a name with a zero byte", ErrHostile)
		}
		if comps = append(comps, c); len(comps) > u.limits.Depth {
			return nil, fmt.Errorf("%w: a path deeper than %d directories", ErrLimit, u.limits.Depth)
		}
	}
	return comps, nil
}

const (
	whiteoutPrefix = ".wh."
	opaqueRest     = ".wh..opq" // of ".wh..wh..opq"
	aufsRest       = ".wh."     // ".wh..wh.plnk" and others are AUFS' own
)

// whiteout handles ".wh.NAME", which removes NAME of the lower layers, and
// ".wh..wh..opq", which removes all that they have in the directory. Neither
// touches what this layer brings itself, before or after.
func (u *unpacker) whiteout(parent *dir, rest string, hdr *tar.Header) error {
	switch {
	case rest == opaqueRest:
		parent.opaque = true
		return nil
	case strings.HasPrefix(rest, aufsRest):
		return nil
	case rest == "" || rest == "." || rest == "..":
		return fmt.Errorf("%w: a whiteout of a directory from within", ErrHostile)
	case hdr.Typeflag != tar.TypeReg && hdr.Typeflag != tar.TypeLink && hdr.Typeflag != tar.TypeChar:
		return fmt.Errorf("%w: a whiteout that is no file", ErrHostile)
	}
	fd, err := u.tree.fd(parent)
	if err != nil {
		return err
	}
	if kid := parent.kids[rest]; kid != nil {
		kid.opaque = true
		return nil
	}
	err = at.Mknod(fd, rest, at.TypeChar, 0, 0, 0)
	if errors.Is(err, os.ErrExist) {
		return nil // this layer's own file, or a second whiteout
	}
	return err
}

// clear makes room for name: what this layer put there before goes away.
func (u *unpacker) clear(parent *dir, fd int, name string) error {
	if kid := parent.kids[name]; kid != nil {
		u.tree.forget(kid)
		return at.RemoveAll(fd, name)
	}
	return at.Remove(fd, name)
}

// place calls create, once more after clearing the name if it is taken.
func (u *unpacker) place(parent *dir, name string, create func(fd int) error) (int, error) {
	fd, err := u.tree.fd(parent)
	if err != nil {
		return -1, err
	}
	err = create(fd)
	if errors.Is(err, os.ErrExist) {
		if err = u.clear(parent, fd, name); err == nil {
			err = create(fd)
		}
	}
	return fd, err
}

func (u *unpacker) regular(parent *dir, name string, m *meta, hdr *tar.Header, content io.Reader) error {
	if hdr.Size < 0 || hdr.Size > u.limits.Bytes-u.bytes {
		return fmt.Errorf("%w: the files are larger than %s", ErrLimit, bytesText(u.limits.Bytes))
	}
	if err := u.budget.Take(hdr.Size); err != nil {
		return err
	}
	u.bytes += hdr.Size
	var file int
	fd, err := u.place(parent, name, func(fd int) (err error) {
		file, err = at.Create(fd, name, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	err = u.fill(file, hdr.Size, content)
	if err == nil {
		err = m.applyOpen(file, u.tree.plainOwner, 0o600)
	}
	if closeErr := at.Close(file); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return at.Chtimes(fd, name, m.atime, m.mtime)
}

// holeSize is the unit in which zeros are left out of files.
const holeSize = 128 << 10

// fill copies size bytes. Blocks of zeros become holes, so that a file of
// zeros costs no disk.
func (u *unpacker) fill(file int, size int64, content io.Reader) error {
	var off int64
	hole := false
	for off < size {
		b := u.buf[:min(int64(len(u.buf)), size-off)]
		if _, err := io.ReadFull(content, b); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if hole = len(b) == holeSize && allZero(b); !hole {
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

func (u *unpacker) symlink(parent *dir, name string, m *meta, target string) error {
	if target == "" || strings.ContainsRune(target, 0) {
		return fmt.Errorf("%w: a symbolic link to nothing", ErrHostile)
	}
	if len(target) > u.limits.PathBytes {
		return fmt.Errorf("%w: a link target longer than %d bytes", ErrLimit, u.limits.PathBytes)
	}
	fd, err := u.place(parent, name, func(fd int) error { return at.Symlink(target, fd, name) })
	if err != nil {
		return err
	}
	m.isLink = true
	return m.applyName(fd, name, u.tree.plainOwner)
}

func (u *unpacker) hardlink(parent *dir, name, target string) error {
	comps, err := u.components(target)
	if err != nil {
		return fmt.Errorf("hard link target %s: %w", quote(target), err)
	}
	if len(comps) == 0 {
		return fmt.Errorf("%w: a hard link to a directory", ErrHostile)
	}
	from, err := u.tree.existing(comps[:len(comps)-1])
	if err != nil {
		return fmt.Errorf("hard link target %s: %w", quote(target), err)
	}
	old := comps[len(comps)-1]
	if from == parent && old == name {
		return nil
	}
	if from.kids[old] != nil {
		return fmt.Errorf("%w: a hard link to a directory", ErrHostile)
	}
	oldFD, err := u.tree.fd(from)
	if err != nil {
		return err
	}
	st, err := at.Lstat(oldFD, old)
	if err != nil || at.IsWhiteout(st) {
		return fmt.Errorf("%w: the hard link's target %s is not in the layer", ErrHostile, quote(target))
	}
	_, err = u.place(parent, name, func(fd int) error {
		// Clearing a tree may have taken the target with it.
		oldFD, err := u.tree.fd(from)
		if err != nil {
			return err
		}
		if fd, err = u.tree.fd(parent); err != nil {
			return err
		}
		return at.Link(oldFD, old, fd, name)
	})
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: the hard link replaces its own target", ErrHostile)
	}
	return err
}

func (u *unpacker) special(parent *dir, name string, m *meta, hdr *tar.Header) error {
	typ := map[byte]uint32{tar.TypeChar: at.TypeChar, tar.TypeBlock: at.TypeBlock, tar.TypeFifo: at.TypeFifo}[hdr.Typeflag]
	major, minor := hdr.Devmajor, hdr.Devminor
	if typ == at.TypeFifo {
		major, minor = 0, 0
	}
	if major < 0 || major > 0xfff || minor < 0 || minor > 0xfffff { // 12 and 20 bits, MKDEV
		return fmt.Errorf("%w: no such device number %d:%d", ErrHostile, major, minor)
	}
	fd, err := u.place(parent, name, func(fd int) error {
		return at.Mknod(fd, name, typ, 0o600, uint32(major), uint32(minor))
	})
	if err != nil {
		return err
	}
	return m.applyName(fd, name, u.tree.plainOwner)
}

// quote makes a path of the archive fit for a message.
func quote(s string) string {
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return fmt.Sprintf("%q", s)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
