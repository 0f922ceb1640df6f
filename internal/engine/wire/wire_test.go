package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestFrames(t *testing.T) {
	big := bytes.Repeat([]byte("x"), MaxData)
	b := AppendFrame(nil, TypeStdin, big)
	b = AppendFrame(b, TypeCloseStdin, nil)
	b = AppendResize(b, 50, 132)
	b = AppendUint32(b, TypeSignal, 15)
	b, err := AppendJSON(b, TypeExit, workload.Exit{Code: 137, Signal: 9})
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(iotest(b))
	want := []struct {
		t Type
		p []byte
	}{
		{TypeStdin, big}, {TypeCloseStdin, []byte{}}, {TypeResize, []byte{0, 50, 0, 132}},
		{TypeSignal, []byte{0, 0, 0, 15}}, {TypeExit, nil},
	}
	for _, w := range want {
		got, p, err := r.Next()
		if err != nil || got != w.t || w.p != nil && !bytes.Equal(p, w.p) {
			t.Fatalf("got type %d, %d bytes, %v, want type %d", got, len(p), err, w.t)
		}
		if w.t == TypeExit {
			var e workload.Exit
			if err := Decode(p, &e); err != nil || e.Code != 137 || e.Signal != 9 {
				t.Errorf("got %+v, %v", e, err)
			}
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: got %v", err)
	}
}

// iotest returns a reader that gives one byte at a time.
func iotest(b []byte) io.Reader { return &oneByte{b} }

type oneByte struct{ b []byte }

func (r *oneByte) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:1], r.b)
	r.b = r.b[n:]
	return n, nil
}

func TestRefused(t *testing.T) {
	tests := map[string][]byte{
		"type 0":         {0, 0, 0, 0, 0, 0, 0, 0},
		"unknown type":   {200, 0, 0, 0, 0, 0, 0, 0},
		"reserved bytes": {byte(TypeStdin), 1, 0, 0, 0, 0, 0, 0},
		"too long":       {byte(TypeStdin), 0, 0, 0, 0, 0, 0x80, 1},
		"huge":           {byte(TypeRequest), 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
		"cut off":        {byte(TypeStdin), 0, 0, 0, 0, 0, 0, 5, 'a'},
		"half a header":  {byte(TypeStdin), 0},
	}
	for name, b := range tests {
		if _, _, err := NewReader(bytes.NewReader(b)).Next(); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, want ErrProtocol", name, err)
		}
	}
}

func TestErrorsCross(t *testing.T) {
	for _, s := range sentinels {
		err := fmt.Errorf("start x: %w", s.err)
		got := NewError(err)
		if !errors.Is(got, s.err) || got.Error() != err.Error() {
			t.Errorf("%v: got %v", err, got)
		}
	}
	for range 50 {
		if got := NewError(errors.Join(workload.ErrNotRunning, workload.ErrCommandNotFound)); !errors.Is(got, workload.ErrCommandNotFound) {
			t.Fatalf("a start, and cleaning up after it: got %+v", got)
		}
	}
	if got := NewError(errors.New("other")); got.Code != "" || got.Unwrap() != nil {
		t.Errorf("other: got %+v", got)
	}
}

// FuzzReader reads frames that a hostile client could send: no panic, and no
// memory for bytes that did not arrive.
func FuzzReader(f *testing.F) {
	f.Add(AppendFrame(nil, TypeStdin, []byte("abc")))
	f.Add(AppendResize(AppendUint32(nil, TypeSignal, 9), 1, 2))
	f.Add([]byte(`{"version":1}`))
	req, _ := AppendJSON(nil, TypeRequest, Request{Version: Version, Op: OpAttach})
	f.Add(req)
	f.Add([]byte{byte(TypeRequest), 0, 0, 0, 0, 0xff, 0xff, 0xff, '{'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for {
			typ, p, err := r.Next()
			if err != nil {
				if err != io.EOF && !errors.Is(err, ErrProtocol) {
					t.Fatal(err)
				}
				break
			}
			if len(p) > int(maxPayload[typ]) {
				t.Fatalf("type %d with %d bytes", typ, len(p))
			}
			var req Request
			var reply Reply
			Decode(p, &req)
			Decode(p, &reply)
			Uint32(p)
			Size(p)
		}
		if cap(r.buf) > 2*len(b)+2*growth {
			t.Fatalf("%d bytes of memory for %d of input", cap(r.buf), len(b))
		}
	})
}

func TestSocket(t *testing.T) {
	// Longer than a socket's address.
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nobody listens: got %v", err)
	}
	for range 2 { // the second time in the place of the first
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			f, err := l.Accept()
			if err == nil {
				_, err = f.Write([]byte("hello"))
				f.Close()
			}
			done <- err
		}()
		f, err := Dial(dir)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err != nil || string(b) != "hello" {
			t.Errorf("got %q, %v", b, err)
		}
		f.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.Close()
	}
	if _, err := Dial(dir); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a dead listener: got %v", err)
	}
}

// TestAcceptWithoutRoom has no descriptor left when a connection comes: it is accepted
// when there is one again.
func TestAcceptWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	next, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(next)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = uint64(next)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	go func() {
		f, err := l.Accept()
		if err == nil {
			f.Close()
		}
		accepted <- err
	}()
	select {
	case err := <-accepted:
		accepted <- fmt.Errorf("over without room: %w", err)
	case <-time.After(5 * scarcity):
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; err != nil {
		t.Errorf("got %v", err)
	}
}

// TestOtherUser connects as another user after the directory was opened to all,
// which the modes normally prevent.
func TestOtherUser(t *testing.T) {
	if dir := os.Getenv("WIRE_TEST_DIR"); dir != "" {
		f, err := Dial(dir)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		b, err := io.ReadAll(f)
		fmt.Printf("got %q, %v\n", b, err)
		os.Exit(0)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	dir, err := os.MkdirTemp("/tmp", "wire")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Chmod(dir, 0o755)
	os.Chmod(filepath.Join(dir, "socket"), 0o666)
	self := filepath.Join(dir, "test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, b, 0o755); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan *os.File, 1)
	go func() {
		f, _ := l.Accept()
		if f != nil {
			f.Write([]byte("secret"))
			f.Close()
		}
		accepted <- f
	}()
	dial := func(uid uint32) string {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.Command(self, "-test.run=^TestOtherUser$")
		cmd.Env = append(os.Environ(), "WIRE_TEST_DIR="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := dial(65534); strings.Contains(out, "secret") || !strings.Contains(out, "got ") {
		t.Errorf("user 65534: %s", out)
	}
	if out := dial(0); !strings.Contains(out, "secret") {
		t.Errorf("root: %s", out)
	}
	<-accepted
}

// TestHostEnded: who asks a machine that is gone is told so, in words and as the
// errors that callers look for.
func TestHostEnded(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for dir, want := range map[string]error{filepath.Join(dir, "removed"): os.ErrNotExist, dir: syscall.ECONNREFUSED} {
		_, _, err := Host{Dir: dir}.Insert(t.Context(), "image")
		if !errors.Is(err, want) || !strings.HasPrefix(err.Error(), "the machine has ended: ") {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}
