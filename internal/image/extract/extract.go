// Package extract copies a directory of an image, as overlayfs shows it over
// the image's layers, into a directory of the host: the content that a fresh
// volume gets.
//
// The layers come from anybody. They are walked by descriptor, no link in them
// is followed but as the image's own root would, and what a copy may cost is
// bounded. The limits that layers were unpacked with (package unpack) also bound
// the depth and length of their paths, so each directory of a layer is opened
// by one path without links.
package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// ErrLimit is wrapped when a copy would cost more than its Budget.
var ErrLimit = errors.New("the image has too much to copy into volumes")

// Budget bounds what several copies may cost together. Its zero value allows
// nothing.
type Budget struct {
	Bytes int64 // of file contents, holes not counted
	Files int   // files and directories
}

// DefaultBudget is that of one workload: as much as one image may hold, so that
// an image which names the same directory as many volumes does not fill the disk.
func DefaultBudget() *Budget {
	return &Budget{Bytes: unpack.DefaultImageBytes, Files: 2 * unpack.DefaultEntries}
}

func (b *Budget) bytes(n int64) error {
	if b.Bytes -= n; b.Bytes < 0 {
		return fmt.Errorf("%w: too many bytes", ErrLimit)
	}
	return nil
}

func (b *Budget) file() error {
	if b.Files--; b.Files < 0 {
		return fmt.Errorf("%w: too many files", ErrLimit)
	}
	return nil
}

// Dir copies what the image with these layers, lowest first, has in the
// directory dir, an absolute path inside, into the empty directory to, which
// also gets its attributes. It reports whether the image has such a directory.
// On an error to may hold a part.
func Dir(ctx context.Context, layers []string, dir string, to *os.File, b *Budget) (found bool, err error) {
	u, err := open(layers)
	if err != nil {
		return false, err
	}
	defer u.close()
	from, err := u.walk(dir)
	if err != nil || from == nil || from.path == "" {
		return false, err
	}
	c := copier{ctx: ctx, union: u, root: int(to.Fd()), budget: b, links: map[fileID]string{}, buf: make([]byte, copyBuffer)}
	if err := c.dir(from, c.root, ""); err != nil {
		return false, fmt.Errorf("copy %s of the image: %w", dir, err)
	}
	return true, nil
}

// union is the layers of an image, opened.
type union struct {
	roots []int // topmost first
}

func open(layers []string) (*union, error) {
	u := &union{}
	for i := len(layers) - 1; i >= 0; i-- {
		fd, err := at.OpenDir(at.CWD, layers[i])
		if err != nil {
			u.close()
			return nil, fmt.Errorf("open a layer: %w", err)
		}
		u.roots = append(u.roots, fd)
	}
	return u, nil
}

func (u *union) close() {
	for _, fd := range u.roots {
		at.Close(fd)
	}
}

// merged is a directory as overlayfs shows it.
type merged struct {
	path   string // from the root, without a slash at either end
	layers []int  // those that it is merged from, topmost first
}

func (u *union) root() *merged {
	m := &merged{}
	for i := range u.roots {
		m.layers = append(m.layers, i)
	}
	return m
}

// open opens the directory m as one layer has it.
func (u *union) open(m *merged, layer int) (int, error) {
	return at.OpenDirBelow(u.roots[layer], m.path)
}

// file is one name of a merged directory.
type file struct {
	st    at.Stat
	layer int     // that it comes from
	dir   *merged // where it is a directory
}

// lookup finds a name: the topmost layer that has it decides, and directories
// are merged down to the first layer where the name is opaque or no directory
// (Linux, Documentation/filesystems/overlayfs.rst). It returns nil where the
// directory has no such name.
func (u *union) lookup(m *merged, name string) (*file, error) {
	var f *file
	for _, layer := range m.layers {
		more, err := u.lookIn(m, layer, name, &f)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
	}
	return f, nil
}

// lookIn adds what one layer has of a name, and reports whether those below it
// count.
func (u *union) lookIn(m *merged, layer int, name string, f **file) (more bool, err error) {
	fd, err := u.open(m, layer)
	if err != nil {
		return false, err
	}
	defer at.Close(fd)
	st, err := at.Lstat(fd, name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil || at.IsWhiteout(st) {
		return false, err
	}
	directory := st.Mode&at.TypeMask == at.TypeDir
	if *f == nil {
		*f = &file{st: st, layer: layer}
		if directory {
			(*f).dir = &merged{path: path.Join(m.path, name)}
		}
	}
	if !directory {
		return false, nil
	}
	(*f).dir.layers = append((*f).dir.layers, layer)
	v, err := at.Lgetxattr(fd, name, unpack.OpaqueXattr)
	if err != nil && !at.NoXattr(err) {
		return false, err
	}
	return string(v) != "y" || err != nil, nil
}

// How far links may lead: the kernel's MAXSYMLINKS, and the components of the
// path with its links written out.
const (
	maxLinks = 40
	maxSteps = 1024
)

// walk follows a path from the image's root, as the workload's own kernel would:
// absolute links begin there, and ".." ends there. It returns nil where there is no
// such directory.
func (u *union) walk(dir string) (*merged, error) {
	trail := []*merged{u.root()}
	rest := strings.Split(dir, "/")
	for links, steps := 0, 0; len(rest) > 0; steps++ {
		if links > maxLinks || steps > maxSteps {
			return nil, nil
		}
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			trail = trail[:max(1, len(trail)-1)]
			continue
		}
		here := trail[len(trail)-1]
		f, err := u.lookup(here, name)
		if err != nil {
			return nil, err
		}
		switch {
		case f == nil:
			return nil, nil
		case f.dir != nil:
			trail = append(trail, f.dir)
		case f.st.Mode&at.TypeMask == at.TypeSymlink:
			links++
			target, err := u.readlink(here, f, name)
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(target, "/") {
				trail = trail[:1]
			}
			rest = append(strings.Split(target, "/"), rest...)
		default:
			return nil, nil
		}
	}
	return trail[len(trail)-1], nil
}

func (u *union) readlink(m *merged, f *file, name string) (string, error) {
	fd, err := u.open(m, f.layer)
	if err != nil {
		return "", err
	}
	defer at.Close(fd)
	return at.Readlink(fd, name)
}

// names lists a merged directory, also those that a whiteout hides.
func (u *union) names(m *merged, b *Budget) ([]string, error) {
	seen := map[string]bool{}
	for _, layer := range m.layers {
		fd, err := u.open(m, layer)
		if err != nil {
			return nil, err
		}
		if err := list(os.NewFile(uintptr(fd), m.path), seen, b.Files); err != nil {
			return nil, err
		}
	}
	out := make([]string, 0, len(seen))
	for n := range seen {
		out = append(out, n)
	}
	sort.Strings(out)
	return out, nil
}

// list adds the names of a directory, which it closes.
func list(dir *os.File, seen map[string]bool, most int) error {
	defer dir.Close()
	for {
		batch, err := dir.Readdirnames(1024)
		for _, n := range batch {
			seen[n] = true
		}
		if len(seen) > most {
			return fmt.Errorf("%w: too many files", ErrLimit)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
