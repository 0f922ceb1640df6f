package image_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
)

// benchImage has four layers of a thousand files each, 64 MB together.
func benchImage(b *testing.B) string {
	var layers [][]byte
	for l := range 4 {
		var entries []imagetest.Entry
		for f := range 1000 {
			if f%20 == 0 {
				entries = append(entries, imagetest.Dir(fmt.Sprintf("l%d/d%d", l, f/20), 0o755))
			}
			entries = append(entries, imagetest.File(fmt.Sprintf("l%d/d%d/f%d", l, f/20, f), strings.Repeat(fmt.Sprintf("%d %d some text\n", l, f*f), 900)))
		}
		layers = append(layers, imagetest.Tar(b, entries...))
	}
	dir := b.TempDir()
	imagetest.New(b, manifest.RunConfig{}, layers...).Layout(b, dir, "bench")
	return dir
}

// BenchmarkLoad imports and unpacks a layered image into an empty store.
func BenchmarkLoad(b *testing.B) {
	needRoot(b)
	dir := benchImage(b)
	for b.Loop() {
		b.StopTimer()
		s := openStore(b)
		b.StartTimer()
		if _, err := archive.Load(context.Background(), s, dir, archive.LoadOptions{Name: "bench"}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRunPath is what every run of an image does in the store.
func BenchmarkRunPath(b *testing.B) {
	needRoot(b)
	root := b.TempDir()
	s, err := image.Open(root)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := archive.Load(context.Background(), s, benchImage(b), archive.LoadOptions{Name: "bench"}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := image.Open(root)
		if err != nil {
			b.Fatal(err)
		}
		im, err := s.Resolve("bench:bench")
		if err != nil {
			b.Fatal(err)
		}
		chain, err := s.Layers(context.Background(), im)
		if err != nil {
			b.Fatal(err)
		}
		if err := chain.Release(); err != nil {
			b.Fatal(err)
		}
	}
}
