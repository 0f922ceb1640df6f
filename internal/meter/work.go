package meter

import (
	"compress/flate"
	"crypto/sha256"
	"io"
	"math/rand/v2"

	"github.com/seed-f5e3b97b/bulkhead/internal/report"
)

// block is how many bytes one turn of work has.
const block = 64 << 10

// workFigures hardly ask the kernel for anything.
var workFigures = []figure{
	{id: "work.compress", unit: report.BytesPerSecond, each: block, prepare: compress},
	{id: "work.hash", unit: report.BytesPerSecond, each: block, prepare: hash},
}

func compress(*rig) (func(int) error, error) {
	b := text(block)
	w, err := flate.NewWriter(io.Discard, 6)
	if err != nil {
		return nil, err
	}
	return func(n int) error {
		for range n {
			w.Reset(io.Discard)
			if _, err := w.Write(b); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func hash(*rig) (func(int) error, error) {
	b := text(block)
	return func(n int) error {
		for range n {
			sum := sha256.Sum256(b)
			b[0] = sum[0]
		}
		return nil
	}, nil
}

// text is some that looks like language to a compressor, always the same.
func text(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 1000)
	for i := range words {
		w := make([]byte, 2+r.IntN(8))
		for j := range w {
			w[j] = byte('a' + r.IntN(26))
		}
		words[i] = append(w, ' ')
	}
	b := make([]byte, 0, size+16)
	for len(b) < size {
		// The first words are the frequent ones.
		b = append(b, words[r.IntN(1+r.IntN(len(words)))]...)
	}
	return b[:size]
}
