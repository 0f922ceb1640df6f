package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

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
	if err := u.budget.Take(m.size()); err != nil {
		return err
	}
	if len(comps) == 0 {
		if hdr.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root of the layer is no directory", ErrHostile)
		}
		return u.tree.describe(u.tree.root, m)
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
	err = filetree.Fill(file, hdr.Size, content, u.buf)
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
	// Of its own: looking the new name's directory up may close it.
	if oldFD, err = at.Duplicate(oldFD); err != nil {
		return err
	}
	defer at.Close(oldFD)
	st, err := at.Lstat(oldFD, old)
	if err != nil || at.IsWhiteout(st) {
		return fmt.Errorf("%w: the hard link's target %s is not in the layer", ErrHostile, quote(target))
	}
	// Clearing a tree may take the target with it, which linking then shows.
	_, err = u.place(parent, name, func(fd int) error { return at.Link(oldFD, old, fd, name) })
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
