package vmlinux

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
	"github.com/ulikunitz/xz/lzma"
)

// Kind is what a file is by its first bytes.
type Kind int

// The kinds.
const (
	ELF     Kind = iota + 1
	BzImage      // compressed, for x86
	Deb          // a Debian package
)

// MaxUnpacked is the most bytes that an image may unpack to. Kernels built with
// everything, without debug information, have a tenth of it.
const MaxUnpacked = 512 << 20

// maxDictionary bounds the memory of the decompressors. The kernel's makefiles
// use 32 MiB for xz and 128 MiB for zstd (scripts/xz_wrap.sh, Makefile.lib).
const maxDictionary = 128 << 20

// Identify tells what a file is. The error of a file that is none of the kinds
// says what it looks like.
func Identify(r io.ReaderAt, size int64) (Kind, error) {
	var h [1024]byte
	n, err := r.ReadAt(h[:min(size, int64(len(h)))], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	head := h[:n]
	switch {
	case len(head) == 0:
		return 0, invalid("the file is empty")
	case bytes.HasPrefix(head, []byte(elfMagic)):
		return ELF, nil
	case bytes.HasPrefix(head, []byte("!<arch>\ndebian-binary")):
		return Deb, nil
	case n >= 0x206 && string(head[0x202:0x206]) == "HdrS":
		return BzImage, nil
	case n >= 60 && string(head[56:60]) == "ARM\x64":
		return 0, invalid("it is built for arm64, and guests here are x86-64")
	case n >= 60 && string(head[56:60]) == "RSC\x05":
		return 0, invalid("it is built for riscv, and guests here are x86-64")
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return 0, invalid("it is a gzip file; arm64 kernels come like that, and guests here are x86-64")
	case bytes.HasPrefix(head, []byte("\x27\x05\x19\x56")):
		return 0, invalid("it is a U-Boot image, and guests here are x86-64")
	}
	return 0, invalid("it is neither an ELF image nor a bzImage")
}

// setup is the part of a bzImage's header that is needed,
// Documentation/x86/boot.rst.
type setup struct {
	payload int64 // where the compressed image lies in the file
	length  int64
}

// readSetup reads and checks the header of a bzImage.
func readSetup(r io.ReaderAt, size int64) (setup, error) {
	var h [0x270]byte
	if err := readFull(r, h[:], 0); err != nil {
		return setup{}, err
	}
	le := binary.LittleEndian
	if string(h[0x202:0x206]) != "HdrS" || le.Uint16(h[0x1fe:]) != 0xaa55 {
		return setup{}, invalid("its setup header is damaged")
	}
	if v := le.Uint16(h[0x206:]); v < 0x20c {
		return setup{}, invalid("its boot protocol %d.%02d is from before Linux 3.8", v>>8, v&0xff)
	}
	if le.Uint16(h[0x236:])&1 == 0 { // XLF_KERNEL_64
		return setup{}, invalid("it is built for 32-bit x86, and guests here are x86-64")
	}
	sectors := int64(h[0x1f1])
	if sectors == 0 {
		sectors = 4
	}
	s := setup{
		payload: (sectors+1)*512 + int64(le.Uint32(h[0x248:])),
		length:  int64(le.Uint32(h[0x24c:])),
	}
	if s.length < 8 || !within(uint64(s.payload), uint64(s.length), size) {
		return setup{}, invalid("the file is cut off: its payload ends at byte %d of %d", s.payload+s.length, size)
	}
	return s, nil
}

// Unpack writes the ELF image inside a bzImage to w and returns its size. w has
// received a part of it when an error comes.
func Unpack(r io.ReaderAt, size int64, w io.Writer) (int64, error) {
	s, err := readSetup(r, size)
	if err != nil {
		return 0, err
	}
	var trailer [4]byte
	if err := readFull(r, trailer[:], s.payload+s.length-4); err != nil {
		return 0, err
	}
	declared := int64(binary.LittleEndian.Uint32(trailer[:]))
	if declared > MaxUnpacked {
		return 0, invalid("it unpacks to %d bytes, more than %d", declared, MaxUnpacked)
	}
	unpacked, closeIt, err := decompressor(r, s)
	if err != nil {
		return 0, err
	}
	defer closeIt()
	// One byte more than declared shows that there is more.
	n, err := io.Copy(w, &sourceErrors{io.LimitReader(unpacked, declared+1)})
	var damaged *damage
	switch {
	case errors.As(err, &damaged):
		return n, invalid("its compressed part is damaged: %w", damaged.err)
	case err != nil:
		return n, err
	case n != declared:
		return n, invalid("it unpacks to another size than the %d bytes it declares", declared)
	}
	return n, nil
}

// damage marks an error of the decompressor, as opposed to one of the writer.
type damage struct{ err error }

func (d *damage) Error() string { return d.err.Error() }

type sourceErrors struct{ r io.Reader }

func (s *sourceErrors) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = &damage{err}
	}
	return n, err
}

// decompressor opens the payload. Its last four bytes are the unpacked size,
// which only gzip has as a part of its format.
func decompressor(r io.ReaderAt, s setup) (io.Reader, func(), error) {
	var magic [6]byte
	if err := readFull(r, magic[:], s.payload); err != nil {
		return nil, nil, err
	}
	whole := io.NewSectionReader(r, s.payload, s.length)
	body := io.NewSectionReader(r, s.payload, s.length-4)
	none := func() {}
	var out io.Reader
	var err error
	switch m := magic[:]; {
	case bytes.HasPrefix(m, []byte("\xfd7zXZ\x00")):
		out, err = xz.NewReader(body, maxDictionary)
	case bytes.HasPrefix(m, []byte("\x28\xb5\x2f\xfd")):
		var z *zstd.Decoder
		if z, err = zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDictionary)); err == nil {
			return z, z.Close, nil
		}
	case bytes.HasPrefix(m, []byte("\x02\x21\x4c\x18")):
		out = lz4.NewReader(body)
	case bytes.HasPrefix(m, []byte("\x1f\x8b")):
		var z *gzip.Reader
		if z, err = gzip.NewReader(whole); err == nil {
			z.Multistream(false)
			out = z
		}
	case bytes.HasPrefix(m, []byte("BZh")):
		out = bzip2.NewReader(body)
	case bytes.HasPrefix(m, []byte("\x5d\x00\x00")):
		out, err = lzma.ReaderConfig{DictCap: maxDictionary}.NewReader(body)
	case bytes.HasPrefix(m, []byte("\x89LZO")):
		return nil, nil, invalid("it is compressed with LZO; give the uncompressed vmlinux, or one compressed with xz, zstd, lz4 or gzip")
	case bytes.HasPrefix(m, []byte(elfMagic)):
		return body, none, nil
	default:
		return nil, nil, invalid("its compression is unknown (it begins with % x)", magic)
	}
	if err != nil {
		return nil, nil, invalid("its compressed part is damaged: %w", err)
	}
	return out, none, nil
}

// Release is what a bzImage's header says that uname -r will say, "" if that is
// nothing usable.
func Release(r io.ReaderAt, size int64) string {
	var at [2]byte
	if readFull(r, at[:], 0x20e) != nil {
		return ""
	}
	text := make([]byte, 80)
	n, _ := r.ReadAt(text, int64(binary.LittleEndian.Uint16(at[:]))+0x200)
	return releaseAt(text[:n])
}

// String is the kind's name.
func (k Kind) String() string {
	switch k {
	case ELF:
		return "ELF image"
	case BzImage:
		return "bzImage"
	case Deb:
		return "Debian package"
	}
	return fmt.Sprintf("kind %d", int(k))
}
