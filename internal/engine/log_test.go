package engine

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestLogLimits(t *testing.T) {
	for _, files := range []int{1, 2, 5} {
		w := newWorld(t)
		s := spec("bytes", "300000")
		s.Name = "l"
		s.Log = workload.Log{MaxSize: 8 << 10, MaxFiles: files}
		if exit, out, _ := w.run(s, ""); exit.Code != 0 || len(out) != 300000 {
			t.Errorf("got %+v, %d bytes", exit, len(out))
		}
		r := w.want("l", workload.Exited)
		kept, err := filepath.Glob(r.LogPath + "*")
		if err != nil || len(kept) != files {
			t.Errorf("%d files: got %v, %v", files, kept, err)
		}
		var log bytes.Buffer
		if err := w.Logs(ctx(t), "l", LogOptions{Tail: -1}, &log, nil); err != nil || log.Len() == 0 || log.Len() > files*(8<<10+64<<10) {
			t.Errorf("%d files: %d bytes, %v", files, log.Len(), err)
		}
		if end := byte(299999 & 255); log.Bytes()[log.Len()-1] != end {
			t.Errorf("%d files: the last byte is %d, want %d", files, log.Bytes()[log.Len()-1], end)
		}
	}
}

func TestNoLog(t *testing.T) {
	w := newWorld(t)
	s := spec("both")
	s.Name = "l"
	s.Log.Driver = workload.LogNone
	if exit, out, _ := w.run(s, ""); exit.Code != 0 || out != "to stdout\n" {
		t.Errorf("got %+v, %q", exit, out)
	}
	r := w.want("l", workload.Exited)
	if _, err := os.Lstat(r.LogPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("log: got %v", err)
	}
	if err := w.Logs(ctx(t), "l", LogOptions{Tail: -1}, nil, nil); !errors.Is(err, ErrNoLog) {
		t.Errorf("logs: got %v", err)
	}
}

// TestLogDiskFull fills the disk while a workload runs: it goes on, and inspect
// tells before its end.
func TestLogDiskFull(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=600k,mode=700"); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	defer syscall.Unmount(root, 0)
	t.Run("", func(t *testing.T) {
		w := newWorldIn(t, dir)
		s := spec("cat")
		s.Name, s.KeepStdin = "l", true
		in, feed, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer feed.Close()
		var out bytes.Buffer
		session, err := w.Run(ctx(t), s, &Streams{In: in, Out: &out})
		if err != nil {
			t.Fatal(err)
		}
		w.fill(0)
		for range 5 {
			if _, err := feed.Write(bytes.Repeat([]byte("0123456789abcdef"), 1000)); err != nil {
				t.Fatal(err)
			}
		}
		w.await("l", func(r *Record) bool { return r.LogError != "" && r.Status == workload.Running })
		feed.Close()
		if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 0 || out.Len() != 80000 {
			t.Errorf("got %+v, %v, %d bytes", exit, err, out.Len())
		}
		os.Remove(filepath.Join(root, "filler"))
	})
}
