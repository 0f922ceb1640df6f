package main

import (
	"bytes"
	"context"
	"io"
)

// interruptibleWriter returns a writer to w that fails with the context's error once ctx
// is done, even while w, such as a pipe that nobody reads, takes nothing. One write to w
// may then be under way until the program ends.
func interruptibleWriter(ctx context.Context, w io.Writer) io.Writer { return blockingWriter{ctx, w} }

type blockingWriter struct {
	ctx context.Context
	w   io.Writer
}

func (b blockingWriter) Write(p []byte) (int, error) {
	own := bytes.Clone(p) // whoever is told of the end may use p again
	return orDone(b.ctx, func() (int, error) { return b.w.Write(own) })
}

// orDone returns what f does, or the context's error once ctx is done: f then goes on by
// itself.
func orDone[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
