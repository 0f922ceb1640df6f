// Package erofs writes EROFS images: the tree that overlayfs shows over a stack
// of directories, as one read-only file system for a virtual machine's disk.
//
// It writes the plain core of the format, which every kernel since 5.4 reads:
// blocks of 4 KiB, 64-byte inodes, no compression, small contents and the ends
// of files beside their inodes (Linux, Documentation/filesystems/erofs.rst and
// fs/erofs/erofs_fs.h).
//
//	block 0        superblock, at byte 1024
//	block 1 ...    data: whole blocks of files and directories
//	metaBlock ...  inodes, each followed by its extended attributes and by the
//	               end of its content where that fits into the same block
//
// The tree is walked once, names in order, so the same tree always gives the
// same bytes. An inode's place is known before what is below it is written,
// because the size of a directory follows from its names. In memory are only
// the names of the directories on the way from the root, and files with more
// than one link. Holes stay holes in the image file.
//
// What the format does not have: times other than that of modification. What
// is counted, not copied: the links of files and directories, since those on
// disk count names that the tree does not show.
package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// BlockSize is the unit of the image, in bytes; its size is a multiple.
const BlockSize = 1 << blockBits

const (
	blockBits   = 12
	superOffset = 1024
	magic       = 0xe0f5e1e2

	compatChecksum = 1 << 0
	compatMtime    = 1 << 1

	inodeSize  = 64
	slotSize   = 32 // an inode's number counts these from metaBlock
	direntSize = 12

	// Where an inode's content is, with bit 0 for the 64-byte form.
	layoutPlain  = 0<<1 | 1
	layoutInline = 2<<1 | 1

	// rootOffset is where the root's inode is within the metadata: its number
	// has only 16 bits in the superblock, and 0 means "none" elsewhere.
	rootOffset = 2 * slotSize

	nlinkOffset = 44 // within an inode
)

// Types of directory entries.
const (
	typeRegular = 1 + iota
	typeDir
	typeChar
	typeBlock
	typeFifo
	typeSocket
	typeSymlink
)

// ErrDamaged says that a file is no whole image.
var ErrDamaged = errors.New("damaged EROFS image")

// inode is what an image has of a file.
type inode struct {
	layout     uint16
	xattrCount uint16
	mode       uint16
	size       uint64
	union      uint32 // first block, or device number
	serial     uint32
	uid, gid   uint32
	mtime      int64 // seconds
	nsec       uint32
	nlink      uint32
}

func (n *inode) encode() []byte {
	b := make([]byte, 0, inodeSize)
	le := binary.LittleEndian
	b = le.AppendUint16(b, n.layout)
	b = le.AppendUint16(b, n.xattrCount)
	b = le.AppendUint16(b, n.mode)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, n.size)
	b = le.AppendUint32(b, n.union)
	b = le.AppendUint32(b, n.serial)
	b = le.AppendUint32(b, n.uid)
	b = le.AppendUint32(b, n.gid)
	b = le.AppendUint64(b, uint64(n.mtime))
	b = le.AppendUint32(b, n.nsec)
	b = le.AppendUint32(b, n.nlink)
	return append(b, make([]byte, 16)...)
}

// deviceNumber is the form that the kernel's new_decode_dev reads: 12 bits of
// major around 20 of minor.
func deviceNumber(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// super describes an image.
type super struct {
	inodes    uint64
	blocks    uint32
	metaBlock uint32
	uuid      [16]byte
}

// encode returns block 0.
func (s *super) encode() []byte {
	block := make([]byte, BlockSize)
	b := block[superOffset:]
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[8:], compatChecksum|compatMtime)
	b[12] = blockBits
	le.PutUint16(b[14:], rootOffset/slotSize)
	le.PutUint64(b[16:], s.inodes)
	le.PutUint32(b[36:], s.blocks)
	le.PutUint32(b[40:], s.metaBlock)
	copy(b[48:64], s.uuid[:])
	le.PutUint32(b[4:], checksum(b))
	return block
}

// checksum is that of the superblock and the rest of its block, taken while
// its own field is zero. The kernel does not invert the result at the end.
func checksum(b []byte) uint32 {
	return ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

// Info is what Check finds out.
type Info struct {
	Size int64 // bytes
	UUID [16]byte
}

// Check reads the superblock of an image that Write wrote, and compares its
// checksum and the file's size. Errors wrap ErrDamaged where the file is to
// blame.
func Check(f *os.File) (Info, error) {
	block := make([]byte, BlockSize)
	if _, err := f.ReadAt(block, 0); errors.Is(err, io.EOF) {
		return Info{}, fmt.Errorf("%w: %s is too short", ErrDamaged, f.Name())
	} else if err != nil {
		return Info{}, err
	}
	fi, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	b := block[superOffset:]
	le := binary.LittleEndian
	sum := le.Uint32(b[4:])
	le.PutUint32(b[4:], 0)
	if le.Uint32(b) != magic || checksum(b) != sum {
		return Info{}, fmt.Errorf("%w: the superblock of %s has a wrong checksum", ErrDamaged, f.Name())
	}
	info := Info{Size: int64(le.Uint32(b[36:])) * BlockSize}
	copy(info.UUID[:], b[48:64])
	if info.Size != fi.Size() {
		return Info{}, fmt.Errorf("%w: %s has %d of %d bytes", ErrDamaged, f.Name(), fi.Size(), info.Size)
	}
	return info, nil
}
