package fdpass

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSend(t *testing.T) {
	for _, c := range []struct{ name, dir string }{
		{"short path", "."},
		{"path longer than an address", strings.Repeat("d", 120)},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), c.dir)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			// The listener too has to name the socket by a short path.
			t.Chdir(dir)
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "s", Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f, err := os.Create(filepath.Join(dir, "file"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString("content"); err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() { sent <- Send(filepath.Join(dir, "s"), []byte("data"), f) }()
			conn, err := l.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			data, oob := make([]byte, 4096), make([]byte, 4096)
			n, on, _, _, err := conn.ReadMsgUnix(data, oob)
			if err != nil {
				t.Fatal(err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if string(data[:n]) != "data" {
				t.Errorf("data is %q", data[:n])
			}
			got := received(t, oob[:on])
			defer got.Close()
			if _, err := got.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(got)
			if err != nil || string(text) != "content" {
				t.Errorf("read %q, %v through the descriptor", text, err)
			}
		})
	}
}

func received(t *testing.T, oob []byte) *os.File {
	t.Helper()
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		t.Fatalf("got %d messages, %v", len(msgs), err)
	}
	fds, err := syscall.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("got %d descriptors, %v", len(fds), err)
	}
	return os.NewFile(uintptr(fds[0]), "received")
}

func TestSendToNobody(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Send(filepath.Join(t.TempDir(), "none"), []byte("x"), f); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want no such file", err)
	}
}

func TestReceive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120)) // longer than an address
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Send(filepath.Join(dir, "s"), []byte("name"), f); err != nil { // before anybody waits
		t.Fatal(err)
	}
	got, err := l.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	a, _ := f.Stat()
	if b, err := got.Stat(); err != nil || !os.SameFile(a, b) {
		t.Errorf("another file, %v", err)
	}
	// Somebody who sends none, and nobody.
	s, err := connect(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Write(s, []byte("x")); err != nil {
		t.Error(err)
	}
	syscall.Close(s)
	if _, err := l.Receive(t.Context()); err == nil || !strings.Contains(err.Error(), "no descriptor was sent") {
		t.Errorf("nothing sent: got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := l.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody: got %v", err)
	}
}
