package engine

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestDiskFull runs workloads on a file system with ever more room. Each is
// refused with nothing left behind, or runs, and then its exit is recorded even
// if its output does not fit.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=400k,mode=700"); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	defer syscall.Unmount(root, 0)
	t.Run("", func(t *testing.T) { // so that the guard looks before the unmount
		w := newWorldIn(t, dir)
		refused, cut, whole := 0, 0, 0
		for blocks := range 40 {
			w.fill(blocks)
			s := spec("bytes", "20000")
			s.Name = "full"
			session, err := w.Run(ctx(t), s, &Streams{})
			if err != nil {
				if !errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "no space left on device") {
					t.Errorf("%d blocks: got %v", blocks, err)
				}
				w.wantEmpty()
				refused++
				continue
			}
			if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 0 {
				t.Errorf("%d blocks: got %+v, %v", blocks, exit, err)
			}
			r := w.want("full", workload.Exited)
			if r.Exit == nil || r.Exit.Code != 0 || r.Exit.Error != "" {
				t.Errorf("%d blocks: recorded exit %+v", blocks, r.Exit)
			}
			var log bytes.Buffer
			if err := w.Logs(ctx(t), "full", LogOptions{Tail: -1}, &log, nil); err != nil {
				t.Error(err)
			}
			switch {
			case log.Len() == 20000:
				whole++
			case strings.Contains(r.LogError, "no space left"):
				cut++
			default:
				t.Errorf("%d blocks: %d bytes of log, and it says %q", blocks, log.Len(), r.LogError)
			}
			if err := w.Remove(ctx(t), "full", false); err != nil {
				t.Error(err)
			}
			w.wantEmpty()
		}
		if refused == 0 || cut == 0 || whole == 0 {
			t.Errorf("%d were refused, %d ran without all of their log, %d ran: want some of each", refused, cut, whole)
		}
		os.Remove(filepath.Join(root, "filler"))
	})
}

// fill leaves so many blocks of 4 KiB free.
func (w *world) fill(blocks int) {
	w.t.Helper()
	filler := filepath.Join(w.layout.Root, "filler")
	os.Remove(filler)
	f, err := os.Create(filler)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	fi, err := f.Stat()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := f.Truncate(fi.Size() - int64(blocks)*4096); err != nil {
		w.t.Fatal(err)
	}
}

// TestConcurrent runs many workloads at a time, some under one name.
func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	bases := map[uint32]bool{}
	for range 20 {
		wg.Go(func() {
			s := spec("exit", "3")
			session, err := w.Run(ctx(t), s, &Streams{})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if bases[session.Record.IDBase] {
				t.Errorf("range %d has two owners", session.Record.IDBase)
			}
			bases[session.Record.IDBase] = true
			mu.Unlock()
			if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 3 {
				t.Errorf("got %+v, %v", exit, err)
			}
		})
	}
	won := 0
	for range 10 {
		wg.Go(func() {
			s := spec("exit", "0")
			s.Name = "contested"
			_, err := w.Create(ctx(t), s)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case !errors.Is(err, workload.ErrNameTaken):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || len(w.list()) != 21 {
		t.Errorf("%d have the name, %d are listed", won, len(w.list()))
	}
	// Everybody removes everything.
	for range 4 {
		wg.Go(func() {
			for _, r := range w.list() {
				if err := w.Remove(ctx(t), string(r.Spec.ID), true); err != nil && !errors.Is(err, workload.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	w.wantEmpty()
}
