package engine

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/wire"
)

// TestHangupLeavesInputOpen: a caller's terminal ends when it is hung up, be it with
// EIO or as a file does. That is no end of the input of a process with a terminal.
func TestHangupLeavesInputOpen(t *testing.T) {
	for _, end := range []error{io.EOF, syscall.EIO} {
		for _, terminal := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v, terminal %v", end, terminal), func(t *testing.T) {
				ours, theirs, err := wire.Pair()
				if err != nil {
					t.Fatal(err)
				}
				defer theirs.Close()
				s := newSession(t.Context(), nil, newConn(ours), nil, &wire.Reply{Terminal: terminal, Stdin: true}, &Streams{})
				s.io.In = io.MultiReader(strings.NewReader("typed"), iotest.ErrReader(end))
				s.input()
				s.Close()
				var got []wire.Type
				for r := wire.NewReader(theirs); ; {
					kind, _, err := r.Next()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, kind)
				}
				want := []wire.Type{wire.TypeStdin}
				if !terminal {
					want = append(want, wire.TypeCloseStdin)
				}
				if !slices.Equal(got, want) {
					t.Errorf("frames of types %v, want %v", got, want)
				}
			})
		}
	}
}
