package serve

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/fuse"
)

func message(op uint32, node uint64, body []byte) []byte {
	m := make([]byte, fuse.InHeaderSize, fuse.InHeaderSize+len(body))
	le := binary.LittleEndian
	le.PutUint32(m, uint32(len(m)+len(body)))
	le.PutUint32(m[4:], op)
	le.PutUint64(m[8:], 7)
	le.PutUint64(m[16:], node)
	return append(m, body...)
}

// FuzzServe sends requests with any opcode, node and body. Each begins with one
// byte for the opcode, one for the node and one for the length of the body.
func FuzzServe(f *testing.F) {
	f.Add([]byte("\x01\x01\x02a\x00\x0e\x02\x08\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x09\x01\x0b\xff\x01\x00\x00\x00\x00\x00\x00d\x00\x00\x1b\x01\x00\x2c\x01\x18"))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		root := filepath.Join(top, "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"outside", "root/a"} {
			if err := os.WriteFile(filepath.Join(top, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fd, err := OpenRoot(root)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		ours, its := net.Pipe()
		done := make(chan error, 1)
		go func() {
			defer its.Close()
			done <- Serve(its, Options{Root: fd, IDCount: 1 << 16, limits: limits{handles: 4, directories: 2, nodes: 8}})
		}()
		go io.Copy(io.Discard, ours)
		for len(data) >= 3 {
			n := min(int(data[2]), len(data)-3)
			if _, err := ours.Write(message(uint32(data[0]%64), uint64(data[1]), data[3:3+n])); err != nil {
				break
			}
			data = data[3+n:]
		}
		ours.Close()
		<-done
		left, err := os.ReadDir(top)
		if err != nil || len(left) != 2 {
			t.Errorf("outside the volume there is %v, %v", left, err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(top, "outside"), &st); err != nil || st.Mode != unix.S_IFREG|0o600 || st.Size != 1 || st.Nlink != 1 {
			t.Errorf("a file outside the volume was changed: %+v, %v", st, err)
		}
	})
}

// TestRetry: a call that a signal interrupts is made again; any other error counts.
func TestRetry(t *testing.T) {
	for _, want := range []error{nil, unix.EIO} {
		answers := []error{unix.EINTR, unix.EINTR, want, unix.ENOSYS}
		calls := 0
		if got := retry(func() error { calls++; return answers[calls-1] }); got != want { //nolint:errorlint // bare error numbers
			t.Errorf("got %v after %d calls, want %v", got, calls, want)
		}
	}
}
