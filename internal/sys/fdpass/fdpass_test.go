package fdpass

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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
