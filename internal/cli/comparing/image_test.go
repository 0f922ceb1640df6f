package comparing

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// big is how long the file of the image "box" is, and each program that measures.
const big = 4 << 20

// withImage are options of a comparison of an image that is there, with one file in it
// that cannot be compressed.
func withImage(t *testing.T) Options {
	t.Helper()
	s, err := image.Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, big)
	_, _ = rand.Read(noise) // it never fails
	tarball := imagetest.Tar(t, imagetest.Dir(".", 0o755), imagetest.File("./noise", string(noise)))
	if _, err := archive.Import(t.Context(), s, bytes.NewReader(tarball), archive.ImportOptions{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	o := quiet(t)
	o.Image, o.Images = "box", s
	o.Pull = func(_ context.Context, name string) (workload.Image, error) {
		im, err := s.Resolve(name)
		return workload.Image{Reference: name, Digest: im.Digest.String()}, err
	}
	o.Meter, o.Prober = filepath.Join(t.TempDir(), "meter"), filepath.Join(t.TempDir(), "probe")
	for _, program := range []string{o.Meter, o.Prober} {
		if err := os.WriteFile(program, noise, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// TestImageSizeCountsBlobs: an image takes what it came as, what that was unpacked to,
// and for machines a disk; what was added to measure is taken off once for all of them.
func TestImageSizeCountsBlobs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	c := &comparison{Options: withImage(t), id: "0123", dir: t.TempDir()}
	m, err := c.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	im, err := c.Images.Resolve(m.ours)
	if err != nil {
		t.Fatal(err)
	}
	_, release, err := c.Images.Disk(t.Context(), workload.Image{Digest: im.Digest.String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for _, tt := range []struct {
		machine bool
		times   int64 // how often the image's file is there
	}{{false, 2}, {true, 3}} {
		o := &oursDriver{machine: tt.machine, made: m}
		n, err := o.size(t.Context())
		if n -= m.added; err != nil || n < tt.times*big || n > tt.times*big+big/2 {
			t.Errorf("machine %v: %d bytes, want %d and little more: %v", tt.machine, n, tt.times*big, err)
		}
	}
}
