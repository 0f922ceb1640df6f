package erofs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/erofs"
	"golang.org/x/sys/unix"
)

// peakHeap runs f and returns how far the heap grew meanwhile, in bytes.
func peakHeap(f func()) int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := int64(m.HeapInuse)
	var peak atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), int64(m.HeapInuse)))
			select {
			case <-tick.C:
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	f()
	close(stop)
	<-done
	return peak.Load() - before
}

// TestManyNames has a directory of many blocks, and many directories.
func TestManyNames(t *testing.T) {
	needMounts(t)
	d := t.TempDir()
	const many = 100_000
	one := put(t, d, "big/first", "")
	links := 0
	for i := range many {
		// Hard links are the cheapest files; ext4 allows 65000 to one.
		if links++; links == 60_000 {
			one, links = put(t, d, "big/second", ""), 0
		}
		must(t, os.Link(one, filepath.Join(d, "big", fmt.Sprintf("name-%d", i))))
	}
	for i := range 2000 {
		must(t, os.MkdirAll(filepath.Join(d, "dirs", fmt.Sprint(i%50), fmt.Sprint(i)), 0o755))
	}
	var image string
	if peak := peakHeap(func() { image = write(t, erofs.Options{}, d) }); peak > 60<<20 {
		t.Errorf("%d names took %d MiB of heap", many, peak>>20)
	}
	checkFsck(t, image)
	root := mountImage(t, image)
	names, err := os.ReadDir(filepath.Join(root, "big"))
	if err != nil || len(names) != many+2 {
		t.Errorf("the large directory has %d names, %v", len(names), err)
	}
	for _, i := range []int{0, 1, 777, 59_999, 99_999} {
		if _, err := os.Lstat(filepath.Join(root, "big", fmt.Sprintf("name-%d", i))); err != nil {
			t.Error(err)
		}
	}
	if dirs, err := filepath.Glob(filepath.Join(root, "dirs/*/*")); err != nil || len(dirs) != 2000 {
		t.Errorf("found %d directories, %v", len(dirs), err)
	}
}

// TestLargeFile has a file of more than 4 GiB whose bytes are at both ends.
func TestLargeFile(t *testing.T) {
	needMounts(t)
	d := t.TempDir()
	f, err := os.Create(filepath.Join(d, "large"))
	must(t, err)
	const size = 5<<30 + 11
	for _, off := range []int64{0, 4<<30 - 3, size - 5} {
		_, err := f.WriteAt([]byte("bytes"), off)
		must(t, err)
	}
	must(t, f.Close())
	var image string
	if peak := peakHeap(func() { image = write(t, erofs.Options{}, d) }); peak > 16<<20 {
		t.Errorf("a large file took %d MiB of heap", peak>>20)
	}
	var st unix.Stat_t
	must(t, unix.Stat(image, &st))
	if st.Size < size || st.Blocks*512 > 1<<20 {
		t.Errorf("the image has %d bytes and takes %d; holes should stay holes", st.Size, st.Blocks*512)
	}
	got, err := os.Open(filepath.Join(mountImage(t, image), "large"))
	must(t, err)
	defer got.Close()
	if fi, err := got.Stat(); err != nil || fi.Size() != size {
		t.Errorf("size: %v, %v", fi.Size(), err)
	}
	for off, want := range map[int64]string{
		0: "bytes\x00", 4<<30 - 4: "\x00bytes\x00", 3 << 30: "\x00\x00", size - 6: "\x00bytes",
	} {
		b := make([]byte, len(want))
		if _, err := got.ReadAt(b, off); err != nil || string(b) != want {
			t.Errorf("at %d: %q, %v; want %q", off, b, err, want)
		}
	}
}

// TestNamesLimit counts names on the way to a file, not those of the image.
func TestNamesLimit(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for i := range 40 {
		for _, d := range []string{a, b} {
			for j := range 10 {
				put(t, d, fmt.Sprintf("d%d/%s-%d", i, filepath.Base(d), j), "")
			}
		}
	}
	for i := range 5 {
		// Each has a link that is not in the tree.
		must(t, os.Link(put(t, a, fmt.Sprintf("links/%d", i), ""), filepath.Join(filepath.Dir(a), fmt.Sprintf("outside-%d", i))))
	}
	try := func(most int) error {
		dir := t.TempDir()
		out, err := os.Create(filepath.Join(dir, "out"))
		must(t, err)
		defer out.Close()
		scratch, err := os.Create(filepath.Join(dir, "scratch"))
		must(t, err)
		defer scratch.Close()
		_, err = erofs.Write(context.Background(), out, []string{a, b}, erofs.Options{Scratch: scratch, MaxNames: most})
		return err
	}
	// 41 and 40 names in the roots, 20 in a directory; 5 and 5 in "links".
	if err := try(101); err != nil {
		t.Errorf("an image of 900 names, 101 at a time: %v", err)
	}
	if err := try(100); !errors.Is(err, erofs.ErrLimit) {
		t.Errorf("with one name too many: %v", err)
	}
}

// TestDeepTrees stacks trees of the depth that unpacking allows; together they
// need more descriptors than may be open at a time.
func TestDeepTrees(t *testing.T) {
	needMounts(t)
	var dirs []string
	for layer := range 5 {
		d := t.TempDir()
		put(t, d, strings.Repeat("d/", 127)+fmt.Sprintf("file-%d", layer), "x")
		put(t, d, fmt.Sprintf("z/file-%d", layer), "after the way back")
		dirs = append(dirs, d)
	}
	before := openFiles(t)
	same(t, dirs...)
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open, before there were %d", after, before)
	}
}

func openFiles(tb testing.TB) int {
	names, err := os.ReadDir("/proc/self/fd")
	must(tb, err)
	return len(names)
}

// TestFullDisk fills the disk that the image is written to.
func TestFullDisk(t *testing.T) {
	needMounts(t)
	small := t.TempDir()
	must(t, syscall.Mount("tmpfs", small, "tmpfs", 0, "size=1m"))
	defer unmount(t, small)
	d := t.TempDir()
	put(t, d, "file", strings.Repeat("x", 3<<20))
	out, err := os.Create(filepath.Join(small, "out"))
	must(t, err)
	defer out.Close()
	scratch, err := os.Create(filepath.Join(small, "scratch"))
	must(t, err)
	defer scratch.Close()
	if _, err := erofs.Write(context.Background(), out, []string{d}, erofs.Options{Scratch: scratch}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a disk of 1 MiB: %v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	d := b.TempDir()
	const files, bytes = 8000, 120 << 20
	for i := range files {
		n := 2000 + i%7*1000
		if i%50 == 0 {
			n = bytes / files * 45
		}
		put(b, d, fmt.Sprintf("d%d/e%d/f%d", i%20, i%400, i), strings.Repeat("y", n))
	}
	b.ResetTimer()
	for b.Loop() {
		b.SetBytes(bytes)
		write(b, erofs.Options{}, d)
	}
}
