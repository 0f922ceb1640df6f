package image_test

import (
	"archive/tar"
	"os"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
)

func openStore(tb testing.TB, opts ...image.Option) *image.Store {
	tb.Helper()
	s, err := image.Open(tb.TempDir(), opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: devices, owners and overlay mounts")
	}
}

func fifo(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeFifo, Name: name, Mode: 0o600}
}
