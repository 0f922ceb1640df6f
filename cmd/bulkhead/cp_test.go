package main

import (
	"errors"
	"io"
	"testing"
)

// TestPipeWriterEndsEarly: a write that ends without having read all, as it does when a
// guest says so, leaves nobody waiting to be read.
func TestPipeWriterEndsEarly(t *testing.T) {
	broken := errors.New("broken")
	for said, want := range map[error]error{nil: io.ErrClosedPipe, broken: broken} {
		err := pipe(func(w io.Writer) error {
			for {
				if _, err := w.Write([]byte("more")); err != nil {
					return err
				}
			}
		}, func(io.Reader) error { return said })
		if !errors.Is(err, want) {
			t.Errorf("a write that says %v: got %v, want %v", said, err, want)
		}
	}
}
