// Package vmlinux reads kernel image files: it tells whether QEMU can enter one
// through PVH, and unpacks the ELF image out of a bzImage. Images may come from
// anywhere, so nothing in them is believed: every offset is checked against the
// size of the file, and what is read at once is bounded.
package vmlinux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrInvalid is wrapped by every error about what a file holds. The text after
// it is one sentence that says what is wrong.
var ErrInvalid = errors.New("not a kernel that can be booted")

// invalid makes an error about a file's content.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// Info is what an ELF image tells.
type Info struct {
	// Entry is the physical address that PVH starts at.
	Entry uint32
	// Release is what uname -r will say, "" if the image does not show it.
	Release string
	// MMIO tells that the kernel takes virtio devices from its command line.
	MMIO bool
}

// The parts of the ELF format that are looked at: elf(5), and for the note the
// Xen headers, elfnote.h, which Linux's arch/x86/platform/pvh/head.S follows.
const (
	elfMagic         = "\x7fELF"
	elfClass64       = 2
	elfLittleEndian  = 1
	elfHeaderSize    = 64
	programEntrySize = 56
	typeExec         = 2
	typeDyn          = 3
	machineX86_64    = 62
	segmentLoad      = 1
	segmentNote      = 4
	noteOwner        = "Xen\x00"
	notePVHEntry     = 18 // XEN_ELFNOTE_PHYS32_ENTRY

	maxSegments  = 64      // real kernels have five
	maxNoteBytes = 1 << 20 // real ones have some hundred bytes
)

// machines names ELF's e_machine values of architectures that Linux runs on.
var machines = map[uint16]string{
	2: "sparc", 3: "32-bit x86", 8: "mips", 20: "powerpc", 21: "ppc64", 22: "s390", 40: "arm", 43: "sparc64",
	183: "arm64", 243: "riscv", 258: "loongarch",
}

// segment is one entry of the program header table.
type segment struct {
	kind                     uint32
	offset, fileSize         uint64
	physical, memory, alignT uint64
}

// CheckELF reports whether an image of the given size in bytes can be started
// through PVH on x86-64.
func CheckELF(r io.ReaderAt, size int64) (Info, error) {
	segments, err := readSegments(r, size)
	if err != nil {
		return Info{}, err
	}
	entry, found, err := pvhEntry(r, segments)
	if err != nil {
		return Info{}, err
	}
	if !found {
		return Info{}, invalid("it has no PVH entry note; a kernel needs CONFIG_PVH=y")
	}
	inside := false
	for _, s := range segments {
		inside = inside || s.kind == segmentLoad && uint64(entry) >= s.physical && uint64(entry)-s.physical < s.memory
	}
	if !inside {
		return Info{}, invalid("its PVH entry %#x lies outside of what is loaded", entry)
	}
	release, err := findRelease(r, size)
	if err != nil {
		return Info{}, err
	}
	mmio, err := findParameter(r, segments)
	if err != nil {
		return Info{}, err
	}
	return Info{Entry: entry, Release: release, MMIO: mmio}, nil
}

// readSegments reads and checks the headers of an ELF file.
func readSegments(r io.ReaderAt, size int64) ([]segment, error) {
	if size < elfHeaderSize {
		return nil, invalid("the file ends inside its ELF header")
	}
	var h [elfHeaderSize]byte
	if err := readFull(r, h[:], 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	machine := le.Uint16(h[18:])
	switch {
	case string(h[:4]) != elfMagic:
		return nil, invalid("it is not an ELF file")
	case h[5] != elfLittleEndian:
		return nil, invalid("it is built for a big-endian machine, and guests here are x86-64")
	case machine != machineX86_64:
		name := machines[machine]
		if name == "" {
			name = fmt.Sprintf("machine number %d", machine)
		}
		return nil, invalid("it is built for %s, and guests here are x86-64", name)
	case h[4] != elfClass64:
		return nil, invalid("it is a 32-bit image, and guests here are x86-64")
	}
	switch kind := le.Uint16(h[16:]); kind {
	case typeExec, typeDyn:
	default:
		return nil, invalid("it is an ELF file of type %d, not an executable image", kind)
	}
	table, entrySize, count := le.Uint64(h[32:]), le.Uint16(h[54:]), int(le.Uint16(h[56:]))
	if entrySize != programEntrySize || count == 0 || count > maxSegments {
		return nil, invalid("its program header table has %d entries of %d bytes", count, entrySize)
	}
	if !within(table, uint64(count)*programEntrySize, size) {
		return nil, invalid("the file ends inside its program header table")
	}
	raw := make([]byte, count*programEntrySize)
	if err := readFull(r, raw, int64(table)); err != nil {
		return nil, err
	}
	var segments []segment
	for p := raw; len(p) > 0; p = p[programEntrySize:] {
		s := segment{
			kind: le.Uint32(p), offset: le.Uint64(p[8:]), physical: le.Uint64(p[24:]),
			fileSize: le.Uint64(p[32:]), memory: le.Uint64(p[40:]), alignT: le.Uint64(p[48:]),
		}
		if s.kind != segmentLoad && s.kind != segmentNote {
			continue
		}
		if !within(s.offset, s.fileSize, size) {
			return nil, invalid("the file is cut off: a segment ends at byte %d of %d", s.offset+s.fileSize, size)
		}
		if s.kind == segmentLoad && (s.memory < s.fileSize || s.physical+s.memory < s.physical || s.physical+s.memory > math.MaxUint32) {
			return nil, invalid("a segment does not fit below 4 GiB of memory, where PVH starts")
		}
		segments = append(segments, s)
	}
	return segments, nil
}

// within reports whether length bytes at offset lie in a file of size bytes.
func within(offset, length uint64, size int64) bool {
	return offset <= uint64(size) && length <= uint64(size)-offset
}

// pvhEntry looks through the note segments for the PVH entry.
func pvhEntry(r io.ReaderAt, segments []segment) (entry uint32, found bool, err error) {
	for _, s := range segments {
		if s.kind != segmentNote {
			continue
		}
		if s.fileSize > maxNoteBytes {
			return 0, false, invalid("a note segment has %d bytes", s.fileSize)
		}
		raw := make([]byte, s.fileSize)
		if err := readFull(r, raw, int64(s.offset)); err != nil {
			return 0, false, err
		}
		align := uint64(4)
		if s.alignT == 8 {
			align = 8
		}
		if entry, found := noteEntry(raw, align); found {
			return entry, true, nil
		}
	}
	return 0, false, nil
}

// noteEntry walks the notes of one segment. Each is three words (length of the
// owner's name, length of the content, type), the name and the content, both
// padded to align.
func noteEntry(raw []byte, align uint64) (uint32, bool) {
	le := binary.LittleEndian
	for len(raw) >= 12 {
		nameSize, descSize, kind := uint64(le.Uint32(raw)), uint64(le.Uint32(raw[4:])), le.Uint32(raw[8:])
		desc := roundUp(12+nameSize, align)
		next := desc + roundUp(descSize, align)
		if desc+descSize > uint64(len(raw)) {
			return 0, false
		}
		name, content := raw[12:12+nameSize], raw[desc:desc+descSize]
		if kind == notePVHEntry && string(name) == noteOwner && (descSize == 4 || descSize == 8) {
			if descSize == 8 && le.Uint32(content[4:]) != 0 {
				return 0, false
			}
			return le.Uint32(content), true
		}
		raw = raw[min(next, uint64(len(raw))):]
	}
	return 0, false
}

func roundUp(n, align uint64) uint64 { return (n + align - 1) &^ (align - 1) }

// banner is how every kernel's linux_banner begins (init/version-timestamp.c).
const banner = "Linux version "

// findRelease looks for the banner.
func findRelease(r io.ReaderAt, size int64) (release string, err error) {
	_, err = pieces(r, 0, size, func(rest []byte) bool {
		for {
			i := bytes.Index(rest, []byte(banner))
			if i < 0 {
				return false
			}
			rest = rest[i+len(banner):]
			if release = releaseAt(rest); release != "" {
				return true
			}
		}
	})
	return release, err
}

// parameter is the name of the kernel parameter that describes a virtio device
// (drivers/virtio/virtio_mmio.c). An image holds it where the driver and
// CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES are built in; a module would not have the
// first half of it.
const parameter = "virtio_mmio.device\x00"

// findParameter looks for it in what is loaded, so that nothing that describes
// the image for a debugger counts.
func findParameter(r io.ReaderAt, segments []segment) (bool, error) {
	for _, s := range segments {
		if s.kind != segmentLoad {
			continue
		}
		found, err := pieces(r, int64(s.offset), int64(s.offset+s.fileSize), func(b []byte) bool {
			return bytes.Contains(b, []byte(parameter))
		})
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// pieces shows the bytes from one offset to another to a function, bit by bit,
// until it returns true. What is shorter than the overlap is seen whole at least
// once.
func pieces(r io.ReaderAt, from, to int64, see func([]byte) bool) (bool, error) {
	const piece, overlap = 1 << 20, 128
	buf := make([]byte, piece+overlap)
	for at := from; at < to; at += piece {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if see(buf[:n]) {
			return true, nil
		}
	}
	return false, nil
}

// releaseAt is the release that text begins with, up to a space; "" if it is
// none that could name a file.
func releaseAt(text []byte) string {
	word, _, found := bytes.Cut(text[:min(len(text), 65)], []byte(" "))
	if !found || !ValidRelease(string(word)) {
		return ""
	}
	return string(word)
}

// ValidRelease reports whether s looks like a kernel's release: it names files,
// so it begins with a digit and holds no slash.
func ValidRelease(s string) bool {
	if s == "" || len(s) > 64 || s[0] < '0' || s[0] > '9' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case c == '.', c == '-', c == '_', c == '+', c == '~':
		default:
			return false
		}
	}
	return true
}

// readFull reads len(p) bytes at off; a file that ends earlier is invalid.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return invalid("the file ends too early")
	}
	return err
}
