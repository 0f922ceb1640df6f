package erofs

import "encoding/binary"

// dirContent is a directory ready to be written.
type dirContent struct {
	entries      []entry // with the numbers of their inodes, but for "." and ".."
	blocks       []int   // for each block, the index after its last entry
	size         int
	self, parent uint64
}

// pack distributes entries over blocks. A block holds an array of dirents and
// then their names, neither of which crosses its end; only the last block may
// be short. size is that of all blocks.
func pack(entries []entry) (blocks []int, size int) {
	for i := range entries {
		need := direntSize + len(entries[i].name)
		if size+need > BlockSize {
			blocks = append(blocks, i)
			size = 0
		}
		size += need
	}
	return append(blocks, len(entries)), len(blocks)*BlockSize + size
}

// encode appends one block's entries to b.
func (c *dirContent) encode(b []byte, entries []entry) []byte {
	le := binary.LittleEndian
	at := len(entries) * direntSize
	for _, e := range entries {
		nid := e.nid
		switch e.name {
		case ".":
			nid = c.self
		case "..":
			nid = c.parent
		}
		b = le.AppendUint64(b, nid)
		b = le.AppendUint16(b, uint16(at))
		b = append(b, e.kind, 0)
		at += len(e.name)
	}
	for _, e := range entries {
		b = append(b, e.name...)
	}
	return b
}

// putDir fills in the place of a directory and appends its whole blocks to the
// data.
func (w *writer) putDir(off int64, n *inode, xs []byte, c dirContent, inline bool) error {
	n.size = uint64(c.size)
	n.union = w.data.block()
	buf := make([]byte, 0, BlockSize)
	first := 0
	for i, end := range c.blocks {
		buf = c.encode(buf[:0], c.entries[first:end])
		first = end
		if inline && i == len(c.blocks)-1 {
			n.layout = layoutInline
			if err := w.meta.put(buf, off+inodeSize+int64(len(xs))); err != nil {
				return err
			}
			break
		}
		if err := w.data.write(buf); err != nil {
			return err
		}
		if err := w.data.pad(); err != nil {
			return err
		}
	}
	return w.putInode(off, n, xs)
}
