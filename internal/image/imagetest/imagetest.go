// Package imagetest makes layers and images by code, for tests.
package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
)

// Time is the modification time of entries that name none. It has nanoseconds.
var Time = time.Unix(1_600_000_000, 123_456_789)

// Entry is one entry of a layer.
type Entry struct {
	tar.Header
	Content string
}

// Dir is a directory.
func Dir(name string, mode int64) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}
}

// File is a regular file with mode 0644.
func File(name, content string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, Content: content}
}

// Symlink is a symbolic link.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// Link is a hard link.
func Link(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// Device is a character device.
func Device(name string, major, minor int64) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: name, Mode: 0o666, Devmajor: major, Devminor: minor}}
}

// With sets attributes of an entry.
func (e Entry) With(mode int64, uid, gid int, xattrs ...string) Entry {
	e.Mode, e.Uid, e.Gid = mode, uid, gid
	for i := 0; i+1 < len(xattrs); i += 2 {
		if e.PAXRecords == nil {
			e.PAXRecords = make(map[string]string)
		}
		e.PAXRecords["SCHILY.xattr."+xattrs[i]] = xattrs[i+1]
	}
	return e
}

// Tar writes a layer.
func Tar(tb testing.TB, entries ...Entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.Typeflag != tar.TypeXGlobalHeader {
			e.Format = tar.FormatPAX
			if e.ModTime.IsZero() {
				e.ModTime = Time
			}
		}
		if e.Size == 0 {
			e.Size = int64(len(e.Content))
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			tb.Fatalf("entry %q: %v", e.Name, err)
		}
		if e.Content == "" {
			continue
		}
		if _, err := w.Write([]byte(e.Content)); err != nil {
			tb.Fatalf("entry %q: %v", e.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// Gzip compresses.
func Gzip(p []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(p)
	w.Close()
	return b.Bytes()
}

// Zstd compresses.
func Zstd(p []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(p, nil)
}

// Image is a whole image in memory.
type Image struct {
	Manifest manifest.Descriptor
	Config   manifest.Config
	Blobs    map[digest.Digest][]byte
}

// New makes an image of layers, each plain, and compresses them with gzip.
func New(tb testing.TB, run manifest.RunConfig, layers ...[]byte) *Image {
	tb.Helper()
	return NewFor(tb, manifest.Host(), run, layers...)
}

// NewFor is New for a platform.
func NewFor(tb testing.TB, platform manifest.Platform, run manifest.RunConfig, layers ...[]byte) *Image {
	tb.Helper()
	packed := make([][]byte, len(layers))
	for i, l := range layers {
		packed[i] = Gzip(l)
	}
	return newPacked(tb, platform, run, manifest.OCILayerGzip, layers, packed)
}

// NewPacked makes an image of layers that are compressed already.
func NewPacked(tb testing.TB, run manifest.RunConfig, mediaType string, layers, packed [][]byte) *Image {
	tb.Helper()
	return newPacked(tb, manifest.Host(), run, mediaType, layers, packed)
}

func newPacked(tb testing.TB, platform manifest.Platform, run manifest.RunConfig, mediaType string, layers, packed [][]byte) *Image {
	tb.Helper()
	im := &Image{Blobs: make(map[digest.Digest][]byte)}
	im.Config = manifest.Config{Platform: platform, Config: run, RootFS: manifest.RootFS{Type: "layers"}}
	m := manifest.Manifest{SchemaVersion: 2, MediaType: manifest.OCIManifest, Layers: []manifest.Descriptor{}}
	for i, l := range layers {
		im.Config.RootFS.DiffIDs = append(im.Config.RootFS.DiffIDs, digest.FromBytes(l))
		m.Layers = append(m.Layers, im.add(mediaType, packed[i]))
	}
	m.Config = im.addJSON(tb, manifest.OCIConfig, im.Config)
	im.Manifest = im.addJSON(tb, manifest.OCIManifest, m)
	return im
}

func (im *Image) add(mediaType string, p []byte) manifest.Descriptor {
	d := digest.FromBytes(p)
	im.Blobs[d] = p
	return manifest.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(p))}
}

func (im *Image) addJSON(tb testing.TB, mediaType string, v any) manifest.Descriptor {
	tb.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return im.add(mediaType, raw)
}

// Layout writes the image as an OCI layout directory, tagged as most tools do.
func (im *Image) Layout(tb testing.TB, dir, tag string) {
	tb.Helper()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		tb.Fatal(err)
	}
	write := func(path string, p []byte) {
		if err := os.WriteFile(path, p, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	for d, p := range im.Blobs {
		write(filepath.Join(blobs, d.Encoded()), p)
	}
	d := im.Manifest
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	raw, err := json.Marshal(manifest.Index{SchemaVersion: 2, MediaType: manifest.OCIIndex, Manifests: []manifest.Descriptor{d}})
	if err != nil {
		tb.Fatal(err)
	}
	write(filepath.Join(dir, "index.json"), raw)
	write(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
}
