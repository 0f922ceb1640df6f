package image_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
)

// TestBlobOfKnownLayer has images that name the diff ID of a layer that is
// unpacked already, with a blob that the store has not seen as this layer.
func TestBlobOfKnownLayer(t *testing.T) {
	needRoot(t)
	a, b := imagetest.Tar(t, imagetest.File("x", "a")), imagetest.Tar(t, imagetest.File("x", "b"))
	packed := func(layers, blobs [][]byte, mediaType string) *imagetest.Image {
		return imagetest.NewPacked(t, manifest.RunConfig{}, mediaType, layers, blobs)
	}
	for name, im := range map[string]*imagetest.Image{
		"another layer's":              packed([][]byte{a}, [][]byte{imagetest.Gzip(b)}, manifest.OCILayerGzip),
		"another's beside its own":     packed([][]byte{a, a}, [][]byte{imagetest.Gzip(a), imagetest.Gzip(b)}, manifest.OCILayerGzip),
		"one blob as two layers":       packed([][]byte{b, a}, [][]byte{imagetest.Gzip(b), imagetest.Gzip(b)}, manifest.OCILayerGzip),
		"its own with something after": packed([][]byte{a}, [][]byte{append(imagetest.Gzip(a), imagetest.Gzip(b)...)}, manifest.OCILayerGzip),
	} {
		s := openStore(t)
		load(t, s, imagetest.New(t, manifest.RunConfig{}, a), "good")
		if _, err := tryLoad(t, s, im, "bad"); !errors.Is(err, unpack.ErrDigest) {
			t.Errorf("%s: got %v, want ErrDigest", name, err)
		}
	}

	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	load(t, s, imagetest.New(t, manifest.RunConfig{}, a), "good")
	zstd := packed([][]byte{a}, [][]byte{imagetest.Zstd(a)}, manifest.OCILayerZstd)
	load(t, s, zstd, "other")
	// What was found is kept: no later operation reads the blob.
	blob := filepath.Join(root, "images", "blobs", "sha256", digest.FromBytes(imagetest.Zstd(a)).Encoded())
	if err := os.WriteFile(blob, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	load(t, s, zstd, "again")
}

// TestCommitProves has somebody commit an image without having unpacked it.
func TestCommitProves(t *testing.T) {
	needRoot(t)
	a, b := imagetest.Tar(t, imagetest.File("x", "a")), imagetest.Tar(t, imagetest.File("x", "b"))
	s := openStore(t)
	load(t, s, imagetest.New(t, manifest.RunConfig{}, a), "good")
	im := imagetest.NewPacked(t, manifest.RunConfig{}, manifest.OCILayerGzip, [][]byte{a}, [][]byte{imagetest.Gzip(b)})
	op, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	for _, p := range im.Blobs {
		if _, err := op.AddBlob(p); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := op.Commit(context.Background(), im.Manifest.Digest); !errors.Is(err, unpack.ErrDigest) {
		t.Errorf("got %v, want ErrDigest", err)
	}
}

// TestWriteBlobInterrupted has somebody go away in the middle of a blob.
func TestWriteBlobInterrupted(t *testing.T) {
	s := openStore(t)
	op, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const size = 8 << 20
	zeros := &cancelReader{cancel: cancel, left: size}
	err = op.WriteBlob(ctx, digest.FromBytes(make([]byte, size)), size, func() (io.ReadCloser, error) { return io.NopCloser(zeros), nil })
	if !errors.Is(err, context.Canceled) || zeros.left < size/2 {
		t.Errorf("got %v with %d bytes left, want %v at once", err, zeros.left, context.Canceled)
	}
}

// cancelReader reads zeros, and cancels a context with the first of them.
type cancelReader struct {
	cancel context.CancelFunc
	left   int
}

func (c *cancelReader) Read(p []byte) (int, error) {
	c.cancel()
	n := min(len(p), c.left)
	clear(p[:n])
	if c.left -= n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// TestHalfRemovedLayer has a layer that somebody was removing where it is when the machine
// went down.
func TestHalfRemovedLayer(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	a := imagetest.Tar(t, imagetest.File("x", "a"))
	half := filepath.Join(root, "images", "layers", digest.FromBytes(a).Encoded())
	if err := errors.Join(os.MkdirAll(filepath.Join(half, "fs", "left"), 0o700), os.Chmod(half, 0)); err != nil {
		t.Fatal(err)
	}
	im, err := tryLoad(t, s, imagetest.New(t, manifest.RunConfig{}, a), "again")
	if err != nil {
		t.Fatal(err)
	}
	chain, err := s.Layers(context.Background(), im)
	if err != nil {
		t.Fatal(err)
	}
	defer chain.Release()
	names, err := os.ReadDir(chain.Dirs[0])
	if err != nil || len(names) != 1 || names[0].Name() != "x" {
		t.Errorf("the layer has %v, %v; want x alone", names, err)
	}
}
