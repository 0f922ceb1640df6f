package logfile

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 5, time.UTC)

func TestFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := Open(path, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, noon, []byte("one\ntwo\npart"))
	w.Write(Stderr, noon.Add(time.Second), []byte("err\n"))
	w.Write(Stdout, noon.Add(2*time.Second), []byte("ial\n\n"))
	w.Close()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `2026-01-02T12:00:00.000000005Z stdout F one
2026-01-02T12:00:00.000000005Z stdout F two
2026-01-02T12:00:00.000000005Z stdout P part
2026-01-02T12:00:01.000000005Z stderr F err
2026-01-02T12:00:02.000000005Z stdout F ial
2026-01-02T12:00:02.000000005Z stdout F 
`
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	tests := []struct {
		name     string
		o        Options
		out, err string
	}{
		{"all", Options{Tail: -1}, "one\ntwo\npartial\n\n", "err\n"},
		{"nothing", Options{Tail: 0}, "", ""},
		{"tail", Options{Tail: 2}, "ial\n\n", ""},
		{"longer tail", Options{Tail: 100}, "one\ntwo\npartial\n\n", "err\n"},
		{"since", Options{Tail: -1, Since: noon.Add(time.Second)}, "ial\n\n", "err\n"},
		{"until", Options{Tail: -1, Until: noon}, "one\ntwo\npart", ""},
		{"timestamps", Options{Tail: -1, Timestamps: true},
			"2026-01-02T12:00:00.000000005Z one\n2026-01-02T12:00:00.000000005Z two\n2026-01-02T12:00:00.000000005Z partial\n" +
				"2026-01-02T12:00:02.000000005Z \n", "2026-01-02T12:00:01.000000005Z err\n"},
	}
	for _, tt := range tests {
		var out, errs bytes.Buffer
		if err := Read(context.Background(), path, tt.o, &out, &errs); err != nil {
			t.Fatal(err)
		}
		if out.String() != tt.out || errs.String() != tt.err {
			t.Errorf("%s: got %q and %q, want %q and %q", tt.name, out.String(), errs.String(), tt.out, tt.err)
		}
	}
	if err := Read(context.Background(), path+"-missing", Options{Tail: -1}, nil, nil); err != nil {
		t.Errorf("a log that does not exist: %v", err)
	}
}

// TestNewlinesKeepTheSize writes what takes many times its length as entries.
func TestNewlinesKeepTheSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	limits := Limits{Size: LeastSize, Files: 3}
	w, err := Open(path, limits)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.Write(Stdout, noon, bytes.Repeat([]byte{'\n'}, MaxChunk))
	}
	w.Write(Stdout, noon, []byte("end\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != limits.Files {
		t.Errorf("files %q, %v; want %d", files, err, limits.Files)
	}
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if most := limits.Size + int64(maxLine); fi.Size() > most {
			t.Errorf("%s has %d bytes; want %d and a chunk, %d, at most", filepath.Base(f), fi.Size(), limits.Size, most)
		}
	}
	var out bytes.Buffer
	if err := Read(context.Background(), path, Options{Tail: -1}, &out, &out); err != nil {
		t.Fatal(err)
	}
	if rest := bytes.TrimLeft(out.Bytes(), "\n"); string(rest) != "end\n" {
		t.Errorf("what is kept ends in %q; want the last line", rest)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	const max = 10000
	w, err := Open(path, Limits{Size: max})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		w.Write(Stdout, noon, fmt.Appendf(nil, "line %d\n", i))
	}
	w.Close()
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != MaxFiles {
		t.Errorf("got %v, %v, want %d files", names, err, MaxFiles)
	}
	for _, n := range names {
		if fi, err := n.Info(); err != nil || fi.Size() > max+100 {
			t.Errorf("%s: %d bytes, %v", n.Name(), fi.Size(), err)
		}
	}
	var out bytes.Buffer
	if err := Read(context.Background(), path, Options{Tail: -1}, &out, nil); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, line := range lines {
		if want := fmt.Sprintf("line %d", 2000-len(lines)+i); line != want {
			t.Fatalf("line %d from the end: got %q, want %q", len(lines)-i, line, want)
		}
	}
	out.Reset()
	if err := Read(context.Background(), path, Options{Tail: 300}, &out, nil); err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(lines[len(lines)-300:], "\n") + "\n"; out.String() != want {
		t.Errorf("tail over two files: got %d bytes, want %d", out.Len(), len(want))
	}
}

// TestFollow reads while a writer writes and rotates, and misses nothing.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := Open(path, Limits{Size: 20000})
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	seen := make(chan int, 10000)
	var wg sync.WaitGroup
	var out countLines
	out.seen = seen
	wg.Go(func() {
		if err := Read(context.Background(), path, Options{Tail: -1, Follow: end}, &out, nil); err != nil {
			t.Error(err)
		}
	})
	const n = 3000
	for i := range n {
		w.Write(Stdout, noon, fmt.Appendf(nil, "line %d\n", i))
		if i%100 == 99 { // a reader that is a whole log behind loses it
			for <-seen < i {
			}
		}
	}
	w.Write(Stdout, noon, []byte("end"))
	w.Close()
	close(end)
	wg.Wait()
	var want bytes.Buffer
	for i := range n {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	want.WriteString("end")
	if !bytes.Equal(out.Bytes(), want.Bytes()) {
		t.Errorf("got %d bytes, want %d", out.Len(), want.Len())
	}
}

type countLines struct {
	bytes.Buffer
	n    int
	seen chan int
}

func (c *countLines) Write(b []byte) (int, error) {
	if bytes.HasSuffix(b, []byte("\n")) {
		c.seen <- c.n
		c.n++
	}
	return c.Buffer.Write(b)
}

// TestTorn appends to a log whose last entry a killed supervisor left half.
func TestTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := noon.Format(timeFormat) + " stdout F one\n" + noon.Format(timeFormat) + " stdo"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Open(path, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, noon, []byte("two\n"))
	w.Close()
	var out bytes.Buffer
	if err := Read(context.Background(), path, Options{Tail: -1}, &out, nil); err != nil || out.String() != "one\ntwo\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// FuzzLog writes bytes in chunks and reads them back; and reads the bytes as if
// they were a log.
func FuzzLog(f *testing.F) {
	f.Add([]byte("one\ntwo\x00\xff"), uint8(3))
	f.Add([]byte(noon.Format(timeFormat)+" stdout F x\n"), uint8(200))
	f.Fuzz(func(t *testing.T, b []byte, chunk uint8) {
		dir := t.TempDir()
		path := filepath.Join(dir, "log")
		w, err := Open(path, Limits{Size: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		for rest := b; len(rest) > 0; {
			n := min(len(rest), int(chunk)+1)
			w.Write(Stderr, noon, rest[:n])
			rest = rest[n:]
		}
		w.Close()
		var out bytes.Buffer
		if err := Read(context.Background(), path, Options{Tail: -1}, nil, &out); err != nil || !bytes.Equal(out.Bytes(), b) {
			t.Fatalf("got %q, %v, want %q", out.Bytes(), err, b)
		}
		bad := filepath.Join(dir, "bad")
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Read(context.Background(), bad, Options{Tail: 1, Timestamps: true}, &out, &out); err != nil {
			t.Fatal(err)
		}
	})
}
