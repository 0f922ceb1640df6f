package vmlinux_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/kerneltest"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/vmlinux"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

const release = "6.1.0-99-test"

var le = binary.LittleEndian

// image is a good image with something changed.
func image(change func(b []byte)) []byte {
	b := kerneltest.Image(release)
	change(b)
	return b
}

func TestCheckELF(t *testing.T) {
	whole := kerneltest.Image(release)
	note := kerneltest.Note
	second := kerneltest.ProgramTable + 56
	for name, c := range map[string]struct {
		image []byte
		want  string // "" for good
	}{
		"good":              {whole, ""},
		"empty":             {nil, "ends inside its ELF header"},
		"header cut":        {whole[:40], "ends inside its ELF header"},
		"table cut":         {whole[:100], "ends inside its program header table"},
		"content cut":       {whole[:len(whole)-1], "the file is cut off"},
		"no ELF":            {image(func(b []byte) { b[1] = 'X' }), "not an ELF file"},
		"arm64":             {image(func(b []byte) { b[18] = 183 }), "built for arm64"},
		"other machine":     {image(func(b []byte) { b[18] = 99 }), "built for machine number 99"},
		"big-endian":        {image(func(b []byte) { b[5] = 2 }), "big-endian"},
		"32 bits":           {image(func(b []byte) { b[4] = 1 }), "32-bit image"},
		"object file":       {image(func(b []byte) { b[16] = 1 }), "type 1, not an executable"},
		"no segments":       {image(func(b []byte) { b[56] = 0 }), "0 entries"},
		"many segments":     {image(func(b []byte) { b[57] = 0xff }), "entries of 56 bytes"},
		"odd entries":       {image(func(b []byte) { b[54] = 1 }), "entries of 1 bytes"},
		"table at the end":  {image(func(b []byte) { le.PutUint64(b[32:], math.MaxUint64) }), "program header table"},
		"offset overflows":  {image(func(b []byte) { le.PutUint64(b[second+8:], math.MaxUint64) }), "cut off"},
		"size overflows":    {image(func(b []byte) { le.PutUint64(b[second+32:], math.MaxUint64) }), "cut off"},
		"above 4 GiB":       {image(func(b []byte) { le.PutUint64(b[kerneltest.ProgramTable+24:], 1<<32) }), "below 4 GiB"},
		"address overflows": {image(func(b []byte) { le.PutUint64(b[kerneltest.ProgramTable+24:], math.MaxUint64) }), "below 4 GiB"},
		"other note":        {image(func(b []byte) { b[note+8] = 17 }), "no PVH entry note"},
		"other owner":       {image(func(b []byte) { b[note+12] = 'x' }), "no PVH entry note"},
		"long owner":        {image(func(b []byte) { le.PutUint32(b[note:], math.MaxUint32) }), "no PVH entry note"},
		"long content":      {image(func(b []byte) { le.PutUint32(b[note+4:], math.MaxUint32) }), "no PVH entry note"},
		"entry outside":     {image(func(b []byte) { le.PutUint32(b[note+16:], 0x10) }), "outside of what is loaded"},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := vmlinux.CheckELF(bytes.NewReader(c.image), int64(len(c.image)))
			if c.want == "" {
				if want := (vmlinux.Info{Entry: 0x1000000, Release: release}); err != nil || info != want {
					t.Errorf("got %+v, %v, want %+v", info, err, want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, vmlinux.ErrInvalid) {
				t.Errorf("got %v, want an ErrInvalid with %q", err, c.want)
			}
		})
	}
}

// TestParameter: what counts is the whole name, in what is loaded.
func TestParameter(t *testing.T) {
	const name = "virtio_mmio.device\x00"
	unloaded := kerneltest.Image(release)
	for what, c := range map[string]struct {
		image []byte
		want  bool
	}{
		"there":       {kerneltest.Image(release, "x", name, "y"), true},
		"at the end":  {kerneltest.Image(release, name), true},
		"not there":   {unloaded, false},
		"another one": {kerneltest.Image(release, "virtio_mmio.device_id\x00"), false},
		"cut off":     {kerneltest.Image(release, "virtio_mmio.device"), false},
		"not loaded":  {append(unloaded, name...), false},
	} {
		info, err := vmlinux.CheckELF(bytes.NewReader(c.image), int64(len(c.image)))
		if err != nil || info.MMIO != c.want {
			t.Errorf("%s: got %v, %v, want %v", what, info.MMIO, err, c.want)
		}
	}
	// Wherever the border between two pieces lies in it.
	for before := 1<<20 - len(unloaded) - len(name); before <= 1<<20-len(unloaded)+1; before++ {
		image := kerneltest.Image(release, strings.Repeat("z", before), name)
		info, err := vmlinux.CheckELF(bytes.NewReader(image), int64(len(image)))
		if err != nil || !info.MMIO {
			t.Errorf("at byte %#x: got %v, %v, want true", len(unloaded)+before, info.MMIO, err)
		}
	}
}

// pack compresses with a writer.
func pack(t testing.TB, content []byte, open func(w io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packings are the compressions that a test can make.
func packings(t testing.TB, content []byte) map[string][]byte {
	return map[string][]byte{
		"none": content,
		"gzip": pack(t, content, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"zstd": pack(t, content, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"xz":   pack(t, content, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
		"lzma": pack(t, content, func(w io.Writer) (io.WriteCloser, error) {
			return lzma.WriterConfig{Size: int64(len(content)), SizeInHeader: true}.NewWriter(w)
		}),
		"lz4": pack(t, content, func(w io.Writer) (io.WriteCloser, error) {
			z := lz4.NewWriter(w)
			return z, z.Apply(lz4.LegacyOption(true))
		}),
	}
}

func unpack(file []byte) ([]byte, error) {
	var out bytes.Buffer
	_, err := vmlinux.Unpack(bytes.NewReader(file), int64(len(file)), &out)
	return out.Bytes(), err
}

func TestUnpack(t *testing.T) {
	content := bytes.Repeat(kerneltest.Image(release), 500)
	for name, packed := range packings(t, content) {
		t.Run(name, func(t *testing.T) {
			file := kerneltest.BzImage(release, packed, len(content))
			if kind, err := vmlinux.Identify(bytes.NewReader(file), int64(len(file))); kind != vmlinux.BzImage {
				t.Errorf("is a %v, %v", kind, err)
			}
			if got := vmlinux.Release(bytes.NewReader(file), int64(len(file))); got != release {
				t.Errorf("release %q, want %q", got, release)
			}
			if got, err := unpack(file); err != nil || !bytes.Equal(got, content) {
				t.Errorf("unpacked %d bytes, %v, want %d", len(got), err, len(content))
			}
			// Whatever byte of the payload is damaged or missing, the result is
			// an error or the right length; the guest's kernel is not checked
			// further than its own format allows.
			for i := 1024; i < len(file); i += max(1, len(file)/50) {
				bad := bytes.Clone(file)
				bad[i] ^= 0x55
				if got, err := unpack(bad); err == nil && len(got) != len(content) {
					t.Errorf("byte %d damaged: %d bytes and no error", i, len(got))
				} else if err != nil && !errors.Is(err, vmlinux.ErrInvalid) {
					t.Errorf("byte %d damaged: %v, want ErrInvalid", i, err)
				}
				if _, err := unpack(file[:i]); !errors.Is(err, vmlinux.ErrInvalid) {
					t.Errorf("cut at %d: %v, want ErrInvalid", i, err)
				}
			}
		})
	}
}

func TestUnpackRefuses(t *testing.T) {
	content := kerneltest.Image(release)
	packed := packings(t, content)
	change := func(f func(b []byte)) []byte {
		b := kerneltest.BzImage(release, packed["zstd"], len(content))
		f(b)
		return b
	}
	bigDictionary := bytes.Clone(packed["lzma"])
	le.PutUint32(bigDictionary[1:], 1<<31)
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"old protocol":   {change(func(b []byte) { le.PutUint16(b[0x206:], 0x204) }), "boot protocol 2.04 is from before Linux 3.8"},
		"32 bits":        {change(func(b []byte) { b[0x236] = 0 }), "32-bit x86"},
		"flag":           {change(func(b []byte) { b[0x1fe] = 0 }), "setup header is damaged"},
		"payload beyond": {change(func(b []byte) { le.PutUint32(b[0x24c:], math.MaxUint32) }), "cut off"},
		"payload at end": {change(func(b []byte) { le.PutUint32(b[0x248:], math.MaxUint32) }), "cut off"},
		"huge":           {kerneltest.BzImage(release, packed["zstd"], 1<<31), "more than"},
		"says less":      {kerneltest.BzImage(release, packed["zstd"], len(content)-1), "another size"},
		"says more":      {kerneltest.BzImage(release, packed["zstd"], len(content)+1), "another size"},
		"LZO":            {kerneltest.BzImage(release, []byte("\x89LZO\x00\x0d\x0a\x1a\x0a"), 9), "compressed with LZO"},
		"unknown":        {kerneltest.BzImage(release, []byte("abcdefgh"), 9), "compression is unknown"},
		"dictionary":     {kerneltest.BzImage(release, bigDictionary, len(content)), "dictionary size 2147483648"},
	} {
		if _, err := unpack(c.file); err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, vmlinux.ErrInvalid) {
			t.Errorf("%s: %v, want an ErrInvalid with %q", name, err, c.want)
		}
	}
}

func TestIdentify(t *testing.T) {
	at := func(offset int, text string) string { return strings.Repeat("\x00", offset) + text }
	for _, c := range []struct {
		content string
		kind    vmlinux.Kind
		want    string
	}{
		{"\x7fELF", vmlinux.ELF, ""},
		{"!<arch>\ndebian-binary   ", vmlinux.Deb, ""},
		{at(0x202, "HdrS"), vmlinux.BzImage, ""},
		{"", 0, "empty"},
		{at(56, "ARM\x64"), 0, "arm64"},
		{at(56, "RSC\x05"), 0, "riscv"},
		{"\x1f\x8b\x08", 0, "gzip"},
		{"hello", 0, "neither an ELF image nor a bzImage"},
	} {
		kind, err := vmlinux.Identify(strings.NewReader(c.content), int64(len(c.content)))
		if kind != c.kind || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%.20q: got %v, %v, want %v, %q", c.content, kind, err, c.kind, c.want)
		}
	}
}

func TestValidRelease(t *testing.T) {
	for s, want := range map[string]bool{
		"6.1.0-56-amd64": true, "6.12.9+deb13~x_1": true, "": false, "../x": false, "6/1": false, "v6": false, "6\n": false,
		strings.Repeat("6", 65): false,
	} {
		if got := vmlinux.ValidRelease(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// FuzzImage gives anything to everything that reads images.
func FuzzImage(f *testing.F) {
	content := kerneltest.Image(release)
	f.Add(content)
	for _, packed := range packings(f, content) {
		f.Add(kerneltest.BzImage(release, packed, len(content)))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		r, size := bytes.NewReader(file), int64(len(file))
		kind, err := vmlinux.Identify(r, size)
		if err == nil && kind == 0 {
			t.Error("neither a kind nor an error")
		}
		if info, err := vmlinux.CheckELF(r, size); err == nil && info.Release != "" && !vmlinux.ValidRelease(info.Release) {
			t.Errorf("release %q", info.Release)
		} else if err != nil && !errors.Is(err, vmlinux.ErrInvalid) {
			t.Errorf("%v is no ErrInvalid", err)
		}
		if s := vmlinux.Release(r, size); s != "" && !vmlinux.ValidRelease(s) {
			t.Errorf("release %q", s)
		}
		var out counter
		n, err := vmlinux.Unpack(r, size, &out)
		if n != int64(out) || n > vmlinux.MaxUnpacked+1 {
			t.Errorf("says %d bytes, wrote %d", n, out)
		}
		if err != nil && !errors.Is(err, vmlinux.ErrInvalid) {
			t.Errorf("%v is no ErrInvalid", err)
		}
	})
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}
