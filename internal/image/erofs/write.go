package erofs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// DefaultNames is twice what unpacking takes from one layer.
const DefaultNames = 2_000_000

// Options of Write.
type Options struct {
	// Root is the directory whose attributes the root of the image gets; ""
	// for the last of the layers.
	Root string
	// MaxBytes bounds the image; 0 leaves it at what the format holds. An
	// error then wraps ErrLimit.
	MaxBytes int64
	// MaxNames bounds the names in the directories on the way to any file, of
	// all layers, with the files that have links elsewhere: what is in memory at
	// a time, at some 130 bytes each. 0 means DefaultNames. An error then wraps
	// ErrLimit.
	MaxNames int
	// UUID names the file system.
	UUID [16]byte
	// Scratch is an empty file for the metadata of the image, some hundred
	// bytes for each file and its content as far as that is small.
	Scratch *os.File
	// Progress is told now and then how many bytes of the image are there.
	Progress func(written int64)
}

// Write writes the image of a stack of directories, lowest first and given by
// absolute paths, to the empty file out. Neither file is synced.
//
// The directories must not change meanwhile, and hold no mounts. No link in
// them is followed, no device opened.
func Write(ctx context.Context, out *os.File, dirs []string, opts Options) (size int64, err error) {
	if len(dirs) == 0 {
		return 0, errors.New("write EROFS image: no directory")
	}
	r := &room{limit: maxImage}
	if opts.MaxBytes > 0 {
		r.limit = min(r.limit, opts.MaxBytes)
	}
	w := &writer{
		data: dataArea{
			ctx: ctx, f: out, room: r, off: BlockSize, progress: opts.Progress,
			buf: make([]byte, 0, bufferSize),
		},
		meta:  metaArea{ctx: ctx, f: opts.Scratch, room: r},
		links: make(map[fileID]*link),
		open:  branches{names: DefaultNames},
	}
	if opts.MaxNames > 0 {
		w.open.names = opts.MaxNames
	}
	defer w.open.close()
	if err := r.take(BlockSize); err != nil {
		return 0, err
	}
	if err := w.meta.extend(rootOffset); err != nil {
		return 0, err
	}
	var stack []*branch
	for _, d := range slices.Backward(dirs) {
		stack = append(stack, &branch{name: d})
	}
	root := stack[0]
	if opts.Root != "" {
		root = &branch{name: opts.Root}
	}
	if _, err := w.dir(stack, root, rootOffset/slotSize); err != nil {
		return 0, fmt.Errorf("write EROFS image: %w", err)
	}
	if size, err = w.finish(opts.UUID); err != nil {
		return 0, fmt.Errorf("write EROFS image: %w", err)
	}
	return size, nil
}

type writer struct {
	data   dataArea
	meta   metaArea
	open   branches
	links  map[fileID]*link
	inodes uint64
}

type fileID struct{ dev, ino uint64 }

// link is a file of which not all names were seen yet.
type link struct {
	off        int64 // of the inode within the metadata
	seen, told uint32
}

// finish puts the areas together and writes the superblock, which makes the
// file an image.
func (w *writer) finish(uuid [16]byte) (int64, error) {
	for _, l := range w.links {
		count := []byte{byte(l.seen), byte(l.seen >> 8), byte(l.seen >> 16), byte(l.seen >> 24)}
		if err := w.meta.put(count, l.off+nlinkOffset); err != nil {
			return 0, err
		}
	}
	if err := w.data.flush(); err != nil {
		return 0, err
	}
	if err := w.meta.flush(); err != nil {
		return 0, err
	}
	if _, err := w.meta.f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	if _, err := w.data.f.Seek(w.data.off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.Copy(w.data.f, w.meta.f)
	if err == nil && n != w.meta.off {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, fmt.Errorf("append the metadata: %w", err)
	}
	size := (w.data.off + w.meta.off + BlockSize - 1) &^ (BlockSize - 1)
	if err := w.data.f.Truncate(size); err != nil {
		return 0, err
	}
	s := super{inodes: w.inodes, blocks: uint32(size >> blockBits), metaBlock: uint32(w.data.off >> blockBits), uuid: uuid}
	_, err = w.data.f.WriteAt(s.encode(), 0)
	return size, err
}

// dir writes a directory and all below it, and returns its number. attrs is
// the branch whose attributes it has.
func (w *writer) dir(stack []*branch, attrs *branch, parent uint64) (uint64, error) {
	n, xs, err := w.dirAttributes(attrs)
	if err != nil {
		return 0, err
	}
	m, err := w.open.merge(stack)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", w.where(attrs), err)
	}
	defer func() {
		w.open.held -= m.held
		for _, b := range stack {
			w.open.shut(b)
		}
	}()
	n.nlink = 0
	for i := range m.entries {
		if m.entries[i].kind == typeDir { // each ".." is a link to here, so are "." and the own name
			n.nlink++
		}
	}
	blocks, size := pack(m.entries)
	tail := size & (BlockSize - 1)
	off, inline, err := w.meta.place(inodeSize+len(xs), tail)
	if err != nil {
		return 0, err
	}
	nid := uint64(off / slotSize)
	for i := range m.entries {
		if err := w.child(m, i, nid); err != nil {
			return 0, err
		}
	}
	return nid, w.putDir(off, n, xs, dirContent{entries: m.entries, blocks: blocks, size: size, self: nid, parent: parent}, inline)
}

// where names a directory of a layer for messages.
func (w *writer) where(b *branch) string {
	if b.parent == nil {
		return b.name
	}
	return filepath.Join(w.where(b.parent), b.name)
}

func (w *writer) dirAttributes(b *branch) (*inode, []byte, error) {
	fd, err := w.open.fd(b)
	if err != nil {
		return nil, nil, err
	}
	st, err := at.Fstat(fd)
	if err != nil {
		return nil, nil, err
	}
	xs, err := xattrs(fd, ".")
	return w.inode(&st, xs), xs, err
}

func (w *writer) inode(st *at.Stat, xs []byte) *inode {
	w.inodes++
	return &inode{
		layout: layoutPlain, xattrCount: xattrCount(len(xs)), mode: uint16(st.Mode), serial: uint32(w.inodes),
		uid: st.Uid, gid: st.Gid, mtime: st.Mtim.Sec, nsec: uint32(st.Mtim.Nsec), nlink: uint32(st.Nlink),
	}
}

// child writes what entry i of a directory names.
func (w *writer) child(m *merged, i int, parent uint64) (err error) {
	e := &m.entries[i]
	if e.name == "." || e.name == ".." {
		return nil
	}
	if e.kind == typeDir {
		stack := m.children(i)
		e.nid, err = w.dir(stack, stack[0], parent)
		return err
	}
	b := m.stack[e.layer]
	dir, err := w.open.fd(b)
	if err != nil {
		return err
	}
	if e.nid, err = w.file(dir, e.name); err != nil {
		return fmt.Errorf("%s: %w", w.where(b), err)
	}
	return nil
}

// file writes a file that is no directory, unless it was written under another
// name, and returns its number.
func (w *writer) file(dir int, name string) (uint64, error) {
	st, err := at.Lstat(dir, name)
	if err != nil {
		return 0, err
	}
	id := fileID{st.Dev, st.Ino}
	if l := w.links[id]; l != nil {
		if l.seen++; l.seen == l.told {
			delete(w.links, id)
			w.open.held--
		}
		return uint64(l.off / slotSize), nil
	}
	xs, err := xattrs(dir, name)
	if err != nil {
		return 0, err
	}
	n := w.inode(&st, xs)
	var off int64
	switch st.Mode & at.TypeMask {
	case at.TypeRegular:
		off, err = w.regular(dir, name, &st, n, xs)
	case at.TypeSymlink:
		var target string
		if target, err = at.Readlink(dir, name); err == nil {
			off, err = w.content(n, xs, int64(len(target)), stringSource(target))
		}
	default:
		n.union = deviceNumber(at.Major(st), at.Minor(st))
		off, err = w.content(n, xs, 0, nil)
	}
	if err == nil && n.nlink > 1 {
		w.links[id] = &link{off: off, seen: 1, told: n.nlink}
		err = w.open.hold(1)
	}
	return uint64(off / slotSize), err
}

func (w *writer) regular(dir int, name string, st *at.Stat, n *inode, xs []byte) (int64, error) {
	if st.Size == 0 {
		return w.content(n, xs, 0, nil)
	}
	fd, err := at.OpenFile(dir, name)
	if err != nil {
		return 0, err
	}
	defer at.Close(fd)
	off, err := w.content(n, xs, st.Size, &fileSource{fd: fd, sparse: st.Blocks*512 < st.Size})
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return off, err
}

// source is where content comes from.
type source interface {
	io.ReaderAt
	// data returns the next range at or after off that may be other than zero;
	// start is end when there is none.
	data(off, size int64) (start, end int64, err error)
}

type stringSource string

func (s stringSource) ReadAt(p []byte, off int64) (int, error) {
	return strings.NewReader(string(s)).ReadAt(p, off)
}

func (s stringSource) data(off, size int64) (int64, int64, error) { return off, size, nil }

type fileSource struct {
	fd     int
	sparse bool
}

func (s *fileSource) ReadAt(p []byte, off int64) (int, error) { return at.Pread(s.fd, p, off) }

func (s *fileSource) data(off, size int64) (int64, int64, error) {
	if !s.sparse {
		return off, size, nil
	}
	start, end, err := at.NextData(s.fd, off)
	return min(start, size), min(end, size), err
}

// content writes an inode with its attributes and size bytes of content, and
// returns its place.
func (w *writer) content(n *inode, xs []byte, size int64, from source) (off int64, err error) {
	n.size = uint64(size)
	tail := int(size & (BlockSize - 1))
	off, inline, err := w.meta.place(inodeSize+len(xs), tail)
	if err != nil {
		return 0, err
	}
	whole := size
	if inline {
		n.layout = layoutInline
		whole -= int64(tail)
		b := make([]byte, tail)
		if err := readFull(from, b, whole); err != nil {
			return 0, err
		}
		if err := w.meta.put(b, off+inodeSize+int64(len(xs))); err != nil {
			return 0, err
		}
	}
	if whole > 0 {
		n.union = w.data.block()
		if err := w.copy(whole, from); err != nil {
			return 0, err
		}
	}
	return off, w.putInode(off, n, xs)
}

// readFull fills p. A source that ends before was changed meanwhile.
func readFull(from source, p []byte, off int64) error {
	n, err := from.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (w *writer) putInode(off int64, n *inode, xs []byte) error {
	return w.meta.put(append(n.encode(), xs...), off)
}

// copy appends the first size bytes of a source to the data.
func (w *writer) copy(size int64, from source) error {
	for off := int64(0); off < size; {
		start, end, err := from.data(off, size)
		if err != nil {
			return err
		}
		if err := w.data.skip(start - off); err != nil {
			return err
		}
		for off = start; off < end; {
			b, err := w.data.space(end - off)
			if err != nil {
				return err
			}
			if err := readFull(from, b, off); err != nil {
				return err
			}
			if err := w.data.added(len(b)); err != nil {
				return err
			}
			off += int64(len(b))
		}
	}
	return w.data.pad()
}
