package unpack

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// dir is a directory that this layer made.
type dir struct {
	parent *dir
	name   string
	kids   map[string]*dir
	depth  int
	path   int   // its length in bytes, with a slash before each name
	meta   *meta // nil while the layer has no entry for it
	opaque bool
	open   *list.Element // of tree.recent; nil when closed
}

// tree holds the directories of the layer and keeps some of them open. What
// is not in it is no directory, or does not exist.
type tree struct {
	root       *dir
	limits     Limits
	budget     *Budget
	plainOwner bool       // new files belong to 0:0
	recent     *list.List // of openDir, most recently used first
	count      int        // entries, and directories made without one
	held       int64      // sum of dir.size
}

type openDir struct {
	d  *dir
	fd int
}

// maxOpen bounds the descriptors that a tree keeps. A directory and its parent
// must stay open at a time.
const maxOpen = 64

// maxLinks is how many symbolic links one path may lead through, the kernel's
// own MAXSYMLINKS.
const maxLinks = 40

// maxSteps bounds the components of one path with its links written out, so
// that a million entries cannot each cost forty long targets.
const maxSteps = 1024

// dirBytes is about what a directory takes in memory beside its name and
// attributes: dir, meta, and a place in the map of its parent (measured: 496).
const dirBytes = 512

// size is what d adds to Limits.DirBytes.
func (d *dir) size() int64 {
	if d.meta == nil {
		return dirBytes + int64(d.path) // as in Result.Implied
	}
	return dirBytes + int64(len(d.name)) + d.meta.size()
}

func newTree(root *os.File, limits Limits, budget *Budget) *tree {
	t := &tree{root: &dir{}, limits: limits, budget: budget, recent: list.New()}
	fd := int(root.Fd())
	st, err := at.Fstat(fd)
	t.plainOwner = err == nil && os.Geteuid() == 0 && os.Getegid() == 0 && st.Mode&0o2000 == 0 && st.Gid == 0
	t.root.open = t.recent.PushFront(openDir{t.root, fd})
	return t
}

// close closes what is open, but for the root, which is the caller's.
func (t *tree) close() {
	for e := t.recent.Front(); e != nil; e = e.Next() {
		if o := e.Value.(openDir); o.d != t.root {
			at.Close(o.fd)
		}
	}
}

// fd returns an open descriptor of d. It stays valid until the next call, which
// opens as many directories as lie above its own and may close all others.
func (t *tree) fd(d *dir) (int, error) {
	if d.open != nil {
		t.recent.MoveToFront(d.open)
		return d.open.Value.(openDir).fd, nil
	}
	parent, err := t.fd(d.parent) // at most Depth levels
	if err != nil {
		return -1, err
	}
	fd, err := at.OpenDir(parent, d.name)
	if err != nil {
		return -1, err
	}
	d.open = t.recent.PushFront(openDir{d, fd})
	if t.recent.Len() > maxOpen {
		last := t.recent.Back()
		if last == t.root.open {
			last = last.Prev()
		}
		t.shut(last.Value.(openDir).d)
	}
	return fd, nil
}

func (t *tree) shut(d *dir) {
	if d.open != nil && d != t.root {
		at.Close(d.open.Value.(openDir).fd)
		t.recent.Remove(d.open)
		d.open = nil
	}
}

// forget drops a directory that is about to be removed.
func (t *tree) forget(d *dir) {
	delete(d.parent.kids, d.name)
	t.shutAll(d)
}

func (t *tree) shutAll(d *dir) {
	t.shut(d)
	t.held -= d.size()
	for _, kid := range d.kids {
		t.shutAll(kid)
	}
}

// add keeps a directory that was made. m is nil when it has no entry.
func (t *tree) add(parent *dir, name string, m *meta) (*dir, error) {
	if parent.kids == nil {
		parent.kids = make(map[string]*dir)
	}
	name = strings.Clone(name) // it is a part of the header
	d := &dir{parent: parent, name: name, depth: parent.depth + 1, path: parent.path + 1 + len(name), meta: m}
	parent.kids[name] = d
	t.held += d.size()
	return d, t.checkHeld()
}

// describe gives d the attributes of an entry.
func (t *tree) describe(d *dir, m *meta) error {
	t.held -= d.size()
	d.meta = m
	t.held += d.size()
	return t.checkHeld()
}

func (t *tree) checkHeld() error {
	if t.held > t.limits.DirBytes {
		return fmt.Errorf("%w: the names and attributes of the directories take more than %s", ErrLimit, bytesText(t.limits.DirBytes))
	}
	return nil
}

// countOne counts an entry, or a directory that is made without one.
func (t *tree) countOne() error {
	if t.count++; t.count > t.limits.Entries {
		return fmt.Errorf("%w: more than %d entries and directories without one", ErrLimit, t.limits.Entries)
	}
	return t.budget.Take(EntryBytes)
}

// dir walks to a directory and makes what is missing on the way.
func (t *tree) dir(comps []string) (*dir, error) { return t.walk(comps, true) }

// existing walks to a directory that must be there.
func (t *tree) existing(comps []string) (*dir, error) { return t.walk(comps, false) }

// walk follows components from the root. Symbolic links of this layer are
// followed as the kernel would with the layer as its root: absolute targets
// begin there and ".." ends there.
func (t *tree) walk(comps []string, create bool) (*dir, error) {
	d, links := t.root, 0
	rest := comps
	for steps := 0; len(rest) > 0; steps++ {
		if steps > maxSteps {
			return nil, fmt.Errorf("%w: symbolic links make the path too long", ErrHostile)
		}
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if d.parent != nil {
				d = d.parent
			}
			continue
		}
		if kid := d.kids[name]; kid != nil {
			d = kid
			continue
		}
		fd, err := t.fd(d)
		if err != nil {
			return nil, err
		}
		st, err := at.Lstat(fd, name)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && at.IsWhiteout(st):
			if !create {
				return nil, fmt.Errorf("%w: no directory %s in the layer", ErrHostile, quote(name))
			}
			if d, err = t.make(d, fd, name, err == nil); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, err
		case st.Mode&at.TypeMask == at.TypeSymlink:
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%w: too many symbolic links in the path", ErrHostile)
			}
			target, err := at.Readlink(fd, name)
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(target, "/") {
				d = t.root
			}
			rest = append(strings.Split(target, "/"), rest...)
		default:
			return nil, fmt.Errorf("%w: %s in the path is no directory", ErrHostile, quote(name))
		}
	}
	return d, nil
}

// fits holds a directory to the limits on paths. The archive's own path may have
// been shorter, and have led through links.
func (t *tree) fits(parent *dir, name string) error {
	switch {
	case parent.depth >= t.limits.Depth:
		return fmt.Errorf("%w: a path deeper than %d directories", ErrLimit, t.limits.Depth)
	case parent.path+len(name) > t.limits.PathBytes:
		return fmt.Errorf("%w: a path longer than %d bytes", ErrLimit, t.limits.PathBytes)
	}
	return nil
}

// make makes a directory; overWhiteout says that a whiteout holds its name,
// so the new directory must hide what lies below.
func (t *tree) make(parent *dir, fd int, name string, overWhiteout bool) (*dir, error) {
	if err := t.fits(parent, name); err != nil {
		return nil, err
	}
	if err := t.countOne(); err != nil {
		return nil, err
	}
	if overWhiteout {
		if err := at.Remove(fd, name); err != nil {
			return nil, err
		}
	}
	if err := at.Mkdir(fd, name, 0o700); err != nil {
		return nil, err
	}
	d, err := t.add(parent, name, nil)
	d.opaque = overWhiteout
	return d, err
}

// mkdir makes the directory of an entry, or gives new attributes to one that
// exists.
func (t *tree) mkdir(parent *dir, name string, m *meta) error {
	if kid := parent.kids[name]; kid != nil {
		return t.describe(kid, m)
	}
	fd, err := t.fd(parent)
	if err != nil {
		return err
	}
	if err := t.fits(parent, name); err != nil {
		return err
	}
	opaque := false
	err = at.Mkdir(fd, name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		st, statErr := at.Lstat(fd, name)
		if statErr != nil {
			return statErr
		}
		opaque = at.IsWhiteout(st)
		if err := at.Remove(fd, name); err != nil {
			return err
		}
		err = at.Mkdir(fd, name, 0o700)
	}
	if err != nil {
		return err
	}
	kid, err := t.add(parent, name, m)
	kid.opaque = opaque
	return err
}

// finish gives the directories their attributes. It comes last, because making
// files changes a directory's time, and a setgid bit or a default ACL would
// change the files.
func (t *tree) finish() error {
	if err := t.finishDir(t.root); err != nil {
		return fmt.Errorf("attributes of the directories: %w", err)
	}
	return nil
}

func (t *tree) finishDir(d *dir) error {
	for _, kid := range d.kids {
		if err := t.finishDir(kid); err != nil {
			return err
		}
	}
	m := d.meta
	if m == nil {
		m = &impliedMeta
	}
	if d != t.root && len(m.xattrs) == 0 && !d.opaque {
		t.shut(d)
		fd, err := t.fd(d.parent)
		if err != nil {
			return err
		}
		return m.applyName(fd, d.name, t.plainOwner)
	}
	fd, err := t.fd(d)
	if err != nil {
		return err
	}
	if d.opaque && d != t.root {
		if err := at.Fsetxattr(fd, OpaqueXattr, []byte("y")); err != nil {
			return err
		}
	}
	if err := m.applyOpen(fd, t.plainOwner, 0o700); err != nil {
		return err
	}
	return at.Chtimes(fd, ".", m.atime, m.mtime)
}

// impliedMeta is for directories without an entry. The time is fixed, so that
// unpacking twice gives the same.
var impliedMeta = meta{mode: 0o755, mtime: time.Unix(0, 0), atime: time.Unix(0, 0)}

// implied lists the directories without an entry, parents first. The root is
// "." and listed as well.
func (t *tree) implied() []string {
	var out []string
	var visit func(d *dir, path string)
	visit = func(d *dir, path string) {
		if d.meta == nil {
			out = append(out, path)
		}
		for _, name := range sortedKeys(d.kids) {
			next := name
			if path != "." {
				next = path + "/" + name
			}
			visit(d.kids[name], next)
		}
	}
	visit(t.root, ".")
	return out
}
