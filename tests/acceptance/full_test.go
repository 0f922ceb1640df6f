package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// newSmallWorld makes a state root on a file system of a few megabytes.
func newSmallWorld(t *testing.T, megabytes int) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "acc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=700", megabytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the state root: %v", err)
		}
	})
	return newWorldIn(t, dir)
}

// fill takes all room but a little, and returns what gives it back.
func (w *world) fill(leave int64) (free func()) {
	w.Helper()
	path := filepath.Join(w.root, "filler")
	f, err := os.Create(path)
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	var size int64
	for block := make([]byte, 4096); ; size += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	if err := f.Truncate(max(size-leave, 0)); err != nil {
		w.Fatal(err)
	}
	return func() { os.Remove(path) }
}

// TestDiskFull fills the state root while another workload runs.
func TestDiskFull(t *testing.T) {
	w := newSmallWorld(t, 24)
	other := w.bystander()
	w.ok("create", "--name", "waiting", "box", "sh", "-c", "echo started")

	// By the workload itself.
	r := w.do("run", "--rm", "box", "sh", "-c", "cat /dev/zero >/x; rm /x; echo survived")
	if r.out != "survived\n" || !strings.Contains(r.err, "No space left on device") || r.code != 0 {
		t.Errorf("a workload that fills the disk: %+v", r)
	}

	// By its output: it is not held up, and what is cut is told.
	r = w.do("run", "--name", "talker", "box", "sh", "-c", "head -c 64000000 /dev/zero; echo end >&2; exit 5")
	if len(r.out) != 64_000_000 || r.code != 5 || !strings.HasSuffix(r.err, "end\n") {
		t.Errorf("a workload that talks: %d bytes, %q, code %d", len(r.out), r.err, r.code)
	}
	if got := w.inspect("talker", ".State.ExitCode"); got != "5" {
		t.Errorf("its recorded exit code: %s", got)
	}
	w.ok("rm", "talker")

	// By something else.
	free := w.fill(0)
	for _, args := range [][]string{{"run", "--rm", "box", "true"}, {"run", "-d", "--name", "new", "box", "true"}, {"create", "--name", "new2", "box", "true"}, {"start", "-a", "waiting"}} {
		r := w.do(args...)
		if r.code == 0 {
			continue // there may have been just enough room
		}
		if r.code != 125 || !strings.Contains(r.err, "no space left") {
			t.Errorf("%s: %+v", show(args), r)
		}
		w.oneSentence(show(args), r, "")
	}
	r = w.do("import", imageTar, "more")
	if r.code != 1 || !strings.Contains(r.err, "no space left") {
		t.Errorf("import: %+v", r)
	}
	w.oneSentence("import", r, "")
	if got := w.do("exec", "bystander", "echo", "here"); got.out != "here\n" || got.code != 0 {
		t.Errorf("exec with a full disk: %+v", got)
	}
	if got := w.do("ps", "-a", "--format", "{{.Names}}"); !strings.Contains(got.out, "bystander") || !strings.Contains(got.out, "waiting") {
		t.Errorf("ps with a full disk: %+v", got)
	}
	w.do("rm", "-f", "new", "new2")
	free()
	if got := w.ok("start", "-a", "waiting"); got != "started" {
		t.Errorf("with room again: %q", got)
	}
	w.ok("rm", "waiting")
	w.ok("run", "--rm", "box", "true")
	w.wantOnly(other)
}

// TestRemoveOnFullDisk: what frees room needs none.
func TestRemoveOnFullDisk(t *testing.T) {
	w := newSmallWorld(t, 16)
	// It fills again and again: the engine may replace a file of its own just
	// after the disk was full, which gives room back.
	w.start("hog", "box", "sh", "-c", "while :; do cat /dev/zero >>/x 2>/dev/null; sleep 0.1; done")
	w.await("the disk is full", func() bool {
		var st syscall.Statfs_t
		return syscall.Statfs(w.root, &st) == nil && st.Bfree == 0
	})
	w.ok("rm", "-f", "hog")
	w.wantNothing()
	defer w.fill(0)()
	w.ok("image", "rm", "box")
	if got := w.ok("images", "-q"); got != "" {
		t.Errorf("images: %q", got)
	}
}

// TestImportOnFullDisk imports with ever more room: it is refused with nothing
// left, or the image is whole.
func TestImportOnFullDisk(t *testing.T) {
	w := newSmallWorld(t, 16)
	w.ok("image", "rm", "box")
	w.ok("image", "prune", "-f")
	refused, imported := 0, 0
	for room := int64(0); room < 8<<20; room += 700 << 10 {
		free := w.fill(room)
		r := w.do("import", imageTar, "box")
		if r.code == 0 {
			imported++
			free()
			if got := w.ok("run", "--rm", "box", "echo", "whole"); got != "whole" {
				t.Errorf("%d bytes of room: got %q", room, got)
			}
			w.ok("image", "rm", "box")
			continue
		}
		refused++
		if !strings.Contains(r.err, "no space left") {
			t.Errorf("%d bytes of room: %+v", room, r)
		}
		if got := w.ok("images", "-q"); got != "" {
			t.Errorf("%d bytes of room: half an image: %q", room, got)
		}
		free()
		if left := w.blobs(); len(left) > 0 {
			t.Errorf("%d bytes of room: left behind: %v", room, left)
		}
	}
	if refused == 0 || imported == 0 {
		t.Errorf("%d refused, %d imported: want some of each", refused, imported)
	}
}

// blobs lists what takes room in the image store.
func (w *world) blobs() []string {
	var found []string
	for path := range w.files() {
		if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() && fi.Size() > 4096 && filepath.Base(path) != "index.reserve" {
			found = append(found, path)
		}
	}
	return found
}
