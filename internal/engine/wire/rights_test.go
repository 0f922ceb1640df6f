package wire

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestFile(t *testing.T) {
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := SendFile(a, f); err != nil {
		t.Fatal(err)
	}
	got, err := ReceiveFile(b)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if text, err := io.ReadAll(got); err != nil || string(text) != "content" {
		t.Errorf("read %q, %v through the descriptor", text, err)
	}
}

// TestNoFile: what is not one descriptor is refused, and not kept.
func TestNoFile(t *testing.T) {
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	for name, rights := range map[string][]byte{"none": nil, "two": syscall.UnixRights(0, 1), "many": syscall.UnixRights(make([]int, 100)...)} {
		a, b, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := a.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		conn.Control(func(fd uintptr) { err = syscall.Sendmsg(int(fd), []byte{0}, rights, nil, 0) })
		if err != nil {
			t.Fatal(err)
		}
		before := open()
		if f, err := ReceiveFile(b); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, %v", name, f, err)
		}
		if after := open(); after != before {
			t.Errorf("%s: %d descriptors, %d before", name, after, before)
		}
		a.Close()
		if _, err := ReceiveFile(b); err == nil {
			t.Errorf("%s: the end: no error", name)
		}
		b.SetDeadline(time.Unix(1, 0))
		b.Close()
	}
}
