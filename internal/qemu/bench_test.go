package qemu

import (
	"context"
	"testing"
)

// BenchmarkStart is the time to a confined QEMU that answers, and its end.
func BenchmarkStart(b *testing.B) {
	cfg := config(b, code{}.hang())
	for b.Loop() {
		m, err := Start(context.Background(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
	}
}

// BenchmarkClosure is the part of it that looks for QEMU's libraries.
func BenchmarkClosure(b *testing.B) {
	path, err := find("")
	if err != nil {
		b.Skip(err)
	}
	for b.Loop() {
		if _, err := findClosure(path); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFilter is the part that assembles the seccomp filter.
func BenchmarkFilter(b *testing.B) {
	for b.Loop() {
		if _, err := filter(&Config{Accel: TCG}); err != nil {
			b.Fatal(err)
		}
	}
}
