package erofs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
)

// ErrLimit says that the image would become larger than allowed, or has more
// files in one place than are held in memory.
var ErrLimit = errors.New("the EROFS image exceeds a limit")

// maxImage is what 32-bit block numbers reach, but for the last ones, which
// have meanings of their own.
const maxImage = (math.MaxUint32 - 1) * BlockSize

// room counts what both areas take.
type room struct{ used, limit int64 }

func (r *room) take(n int64) error {
	if n > r.limit-r.used {
		return fmt.Errorf("%w: more than %d bytes", ErrLimit, r.limit)
	}
	r.used += n
	return nil
}

// bufferSize is how much an area collects before it writes.
const bufferSize = 1 << 20

// dataArea appends to the data blocks of the image.
type dataArea struct {
	ctx      context.Context
	f        *os.File
	room     *room
	off      int64 // where the buffer belongs
	buf      []byte
	progress func(int64)
}

// block is the number of the next block.
//
// Precondition: pad was called since the last write.
func (d *dataArea) block() uint32 { return uint32((d.off + int64(len(d.buf))) >> blockBits) }

// space returns free room in the buffer for up to n bytes, to be filled and
// then handed to added.
func (d *dataArea) space(n int64) ([]byte, error) {
	if len(d.buf) == cap(d.buf) {
		if err := d.flush(); err != nil {
			return nil, err
		}
	}
	free := d.buf[len(d.buf):cap(d.buf)]
	return free[:min(int64(len(free)), n)], nil
}

func (d *dataArea) added(n int) error {
	d.buf = d.buf[:len(d.buf)+n]
	return d.room.take(int64(n))
}

func (d *dataArea) write(p []byte) error {
	for len(p) > 0 {
		b, err := d.space(int64(len(p)))
		if err != nil {
			return err
		}
		n := copy(b, p)
		if err := d.added(n); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// smallHole is what is written as zeros rather than left out.
const smallHole = 64 << 10

// skip leaves n bytes of zeros.
func (d *dataArea) skip(n int64) error {
	if n >= smallHole {
		if err := d.flush(); err != nil {
			return err
		}
		d.off += n
		return d.room.take(n)
	}
	for n > 0 {
		b, err := d.space(n)
		if err != nil {
			return err
		}
		clear(b)
		if err := d.added(len(b)); err != nil {
			return err
		}
		n -= int64(len(b))
	}
	return nil
}

// pad fills the last block.
func (d *dataArea) pad() error {
	return d.skip(-(d.off + int64(len(d.buf))) & (BlockSize - 1))
}

func (d *dataArea) flush() error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if _, err := d.f.WriteAt(d.buf, d.off); err != nil {
		return err
	}
	d.off += int64(len(d.buf))
	d.buf = d.buf[:0]
	if d.progress != nil {
		d.progress(d.room.used)
	}
	return nil
}

// metaArea holds the inodes. It grows in a file of its own, because where it
// begins in the image is known last.
type metaArea struct {
	ctx  context.Context
	f    *os.File
	room *room
	off  int64 // where the buffer belongs
	buf  []byte
}

func (m *metaArea) end() int64 { return m.off + int64(len(m.buf)) }

// place finds room for an inode with its attributes, header bytes in all, and
// for the end of its content if that fits into the block beside them.
func (m *metaArea) place(header, tail int) (off int64, inline bool, err error) {
	at := int(m.end() & (BlockSize - 1))
	inline = tail > 0 && header+tail <= BlockSize
	size := header
	if inline {
		size += tail
	}
	if inline && at+size > BlockSize || at+inodeSize > BlockSize {
		if err := m.extend(BlockSize - at); err != nil {
			return 0, false, err
		}
	}
	off = m.end()
	return off, inline, m.extend((size + slotSize - 1) &^ (slotSize - 1))
}

func (m *metaArea) extend(n int) error {
	if len(m.buf) >= bufferSize {
		if err := m.flush(); err != nil {
			return err
		}
	}
	m.buf = append(m.buf, make([]byte, n)...)
	return m.room.take(int64(n))
}

// put fills in bytes of a place.
func (m *metaArea) put(p []byte, off int64) error {
	if early := min(max(m.off-off, 0), int64(len(p))); early > 0 {
		if _, err := m.f.WriteAt(p[:early], off); err != nil {
			return err
		}
		p, off = p[early:], off+early
	}
	if len(p) > 0 {
		copy(m.buf[off-m.off:], p)
	}
	return nil
}

func (m *metaArea) flush() error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	if _, err := m.f.WriteAt(m.buf, m.off); err != nil {
		return err
	}
	m.off += int64(len(m.buf))
	m.buf = m.buf[:0]
	return nil
}
