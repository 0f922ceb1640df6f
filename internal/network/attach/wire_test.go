package attach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/network"
)

func pair(t testing.TB) (a, b *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestFailure(t *testing.T) {
	a, b := pair(t)
	sent := fmt.Errorf("create network %q: %w", "x", network.ErrOverlap)
	if err := Send(a, Fail(sent), nil, nil); err != nil {
		t.Fatal(err)
	}
	m, _, _, err := Receive(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Error.Err(); got.Error() != sent.Error() || !errors.Is(got, network.ErrOverlap) || errors.Is(got, network.ErrExists) {
		t.Errorf("got %v", got)
	}
	a.Close()
	if _, _, _, err := Receive(b); err != io.EOF {
		t.Errorf("at the end: got %v, want EOF", err)
	}
}

// FuzzReceive: whatever comes is a message or an error, and bounded.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\x00\x00\x00\x0e{\"files\":2}xxx"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<16 {
			return
		}
		a, b := pair(t)
		go func() {
			a.Write(in) //nolint:errcheck // the other end may be closed
			a.Close()
		}()
		_, taps, files, err := Receive(b)
		if err == nil && len(taps)+len(files) > 0 {
			t.Error("descriptors came from nowhere")
		}
	})
}
