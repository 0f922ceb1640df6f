package erofs

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// branch is one directory of one layer.
type branch struct {
	parent *branch // nil for the layer's root
	name   string  // in parent, or an absolute path
	open   *list.Element
}

// branches keeps the directories in use open, as far as there are not too
// many: every level of a deep tree may exist in each of a hundred layers.
type branches struct {
	recent list.List
	// held counts the names and links in memory, of which there may be names.
	held, names int
}

// hold counts n more.
func (bs *branches) hold(n int) error {
	if bs.held += n; bs.held > bs.names {
		return fmt.Errorf("%w: more than %d names in the directories of one path", ErrLimit, bs.names)
	}
	return nil
}

type openBranch struct {
	b  *branch
	fd int
}

// maxOpen bounds the descriptors that are kept. A directory and its parent must
// stay open at a time.
const maxOpen = 128

// fd returns a descriptor of b, valid until the next call: that opens what lies
// above its own directory, too, and may close all others.
func (bs *branches) fd(b *branch) (int, error) {
	if b.open != nil {
		bs.recent.MoveToFront(b.open)
		return b.open.Value.(openBranch).fd, nil
	}
	dir := at.CWD
	if b.parent != nil {
		var err error
		if dir, err = bs.fd(b.parent); err != nil {
			return -1, err
		}
	}
	fd, err := at.OpenDir(dir, b.name)
	if err != nil {
		return -1, err
	}
	b.open = bs.recent.PushFront(openBranch{b, fd})
	if bs.recent.Len() > maxOpen {
		bs.shut(bs.recent.Back().Value.(openBranch).b)
	}
	return fd, nil
}

func (bs *branches) shut(b *branch) {
	if b.open != nil {
		at.Close(b.open.Value.(openBranch).fd)
		bs.recent.Remove(b.open)
		b.open = nil
	}
}

func (bs *branches) close() {
	for bs.recent.Len() > 0 {
		bs.shut(bs.recent.Front().Value.(openBranch).b)
	}
}

// entry is one name of a merged directory.
type entry struct {
	name  string
	nid   uint64 // number of its inode
	layer int32  // index in the directory's stack
	kind  uint8
}

// merged is a directory as overlayfs shows it.
type merged struct {
	stack   []*branch // topmost first
	entries []entry   // in the order of their names, with "." and ".."
	// below lists, by index in entries, the stack of those subdirectories that
	// more than one layer has.
	below map[int][]int32
	held  int // names counted for it
}

// children returns the stack of the subdirectory entries[i].
func (m *merged) children(i int) []*branch {
	e := &m.entries[i]
	layers, ok := m.below[i]
	if !ok {
		layers = []int32{e.layer}
	}
	stack := make([]*branch, len(layers))
	for i, l := range layers {
		stack[i] = &branch{parent: m.stack[l], name: e.name}
	}
	return stack
}

// merge reads a stack of directories. Of each name the topmost layer that has
// it decides, and directories are merged down to the first layer where the name
// is opaque or no directory (Linux, Documentation/filesystems/overlayfs.rst).
func (bs *branches) merge(stack []*branch) (*merged, error) {
	before := bs.held
	m := &merged{stack: stack, entries: []entry{{name: ".", kind: typeDir}, {name: "..", kind: typeDir}}}
	for i, b := range stack {
		if err := bs.list(b, int32(i), &m.entries); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(m.entries, func(a, b entry) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.layer, b.layer))
	})
	all := m.entries
	m.entries = all[:0]
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].name == all[0].name {
			n++
		}
		same := all[:n]
		all = all[n:]
		hidden, err := bs.isWhiteout(stack, same[0])
		if err != nil {
			return nil, err
		}
		if hidden {
			continue
		}
		if n > 1 && same[0].kind == typeDir {
			layers, err := bs.visible(stack, same)
			if err != nil {
				return nil, err
			}
			if len(layers) > 1 {
				if m.below == nil {
					m.below = make(map[int][]int32)
				}
				m.below[len(m.entries)] = layers
			}
		}
		m.entries = append(m.entries, same[0])
	}
	m.held = bs.held - before
	return m, nil
}

// list appends the names of one directory.
func (bs *branches) list(b *branch, layer int32, out *[]entry) error {
	dir, err := bs.fd(b)
	if err != nil {
		return err
	}
	fd, err := at.OpenDir(dir, ".") // a read position of its own
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), b.name)
	defer f.Close()
	for {
		names, err := f.ReadDir(1024)
		for _, n := range names {
			*out = append(*out, entry{name: n.Name(), layer: layer, kind: kindOf(n.Type())})
		}
		if err := bs.hold(len(names)); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func kindOf(m fs.FileMode) uint8 {
	switch {
	case m.IsDir():
		return typeDir
	case m&fs.ModeSymlink != 0:
		return typeSymlink
	case m&fs.ModeCharDevice != 0:
		return typeChar
	case m&fs.ModeDevice != 0:
		return typeBlock
	case m&fs.ModeNamedPipe != 0:
		return typeFifo
	case m&fs.ModeSocket != 0:
		return typeSocket
	}
	return typeRegular
}

func (bs *branches) isWhiteout(stack []*branch, e entry) (bool, error) {
	if e.kind != typeChar {
		return false, nil
	}
	fd, err := bs.fd(stack[e.layer])
	if err != nil {
		return false, err
	}
	st, err := at.Lstat(fd, e.name)
	return err == nil && at.IsWhiteout(st), err
}

// visible returns the layers whose directories of one name are merged.
func (bs *branches) visible(stack []*branch, same []entry) ([]int32, error) {
	var layers []int32
	for _, e := range same {
		if e.kind != typeDir {
			break
		}
		layers = append(layers, e.layer)
		fd, err := bs.fd(stack[e.layer])
		if err != nil {
			return nil, err
		}
		if v, err := at.Lgetxattr(fd, e.name, unpack.OpaqueXattr); err == nil && string(v) == "y" {
			break
		} else if err != nil && !at.NoXattr(err) {
			return nil, err
		}
	}
	return layers, nil
}
