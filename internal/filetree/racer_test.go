package filetree_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// swap exchanges two names again and again until the test ends.
func swap(t testing.TB, a, b string) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
}

// again tells whether a race goes on: for some rounds, and on a busy machine,
// where a racer may not get to run for long, until both outcomes were seen.
func again(n, rounds, won, lost int) bool {
	if n < rounds {
		return true
	}
	if won > 0 && lost > 0 || n > 100*rounds {
		return false
	}
	if n%50 == 0 {
		time.Sleep(time.Millisecond)
	}
	return true
}

// raced makes a root with a directory that a racer swaps for a link out of it,
// both by an absolute and a relative target.
func raced(t testing.TB) (root, out string) {
	top := t.TempDir()
	root, out = filepath.Join(top, "root"), filepath.Join(top, "out")
	must(t, os.MkdirAll(filepath.Join(root, "d/sub"), 0o755), os.MkdirAll(filepath.Join(out, "sub"), 0o755),
		os.WriteFile(filepath.Join(root, "d/sub/f"), []byte("inside"), 0o644),
		os.WriteFile(filepath.Join(out, "sub/f"), []byte("secret of the host"), 0o644),
		os.Symlink(out, filepath.Join(root, "l")),
		os.MkdirAll(filepath.Join(root, "e/sub"), 0o755),
		os.WriteFile(filepath.Join(root, "e/sub/f"), []byte("inside"), 0o644),
		os.Symlink("../../out", filepath.Join(root, "m")))
	swap(t, filepath.Join(root, "d"), filepath.Join(root, "l"))
	swap(t, filepath.Join(root, "e"), filepath.Join(root, "m"))
	return root, out
}

// TestRacerIsNotFollowedReading is CVE-2018-15664 in the direction out of the
// workload.
func TestRacerIsNotFollowedReading(t *testing.T) {
	root, _ := raced(t)
	fd := open(t, root)
	read, failed := 0, 0
	for n := 0; again(n, 3000, read, failed); n++ {
		name := []string{"d/sub/f", "d/sub", "e/sub/f", ".", "d/.", "l/sub", "m/sub/f"}[n%7]
		file, err := filetree.Open(fd, name, n%2 == 0)
		if err != nil {
			failed++
			continue
		}
		var b bytes.Buffer
		err = filetree.Read(t.Context(), file, filetree.Base(name), filetree.ReadOptions{}, &b)
		at.Close(file)
		if err != nil {
			failed++
		}
		if bytes.Contains(b.Bytes(), []byte("secret")) {
			t.Fatalf("%s led out of the root", name)
		}
		if bytes.Contains(b.Bytes(), []byte("inside")) {
			read++
		}
	}
	if read == 0 || failed == 0 {
		t.Errorf("read %d, failed %d: this was no race", read, failed)
	}
}

// TestRacerIsNotFollowedWriting is the other direction.
func TestRacerIsNotFollowedWriting(t *testing.T) {
	needRoot(t)
	root, out := raced(t)
	before := describe(t, out)
	in := archive(t, directory("sub"), file("sub/f", "new"), file("sub/planted", "new"), symlink("sub/l", "/"), link("sub/again", "sub/f")).Bytes()
	whole := archive(t, directory("d/sub"), file("d/sub/f", "new"), file("e/sub/planted", "new"), file("l/sub/planted", "new"), file("m/sub/planted", "new")).Bytes()
	fd := open(t, root)
	wrote, failed := 0, 0
	for n := 0; again(n, 2000, wrote, failed); n++ {
		dir, archive := []string{"d/", "e/", "./"}[n%3], in
		if dir == "./" {
			archive = whole
		}
		to, err := filetree.Open(fd, dir, true)
		if err == nil {
			err = filetree.Write(t.Context(), to, filetree.WriteOptions{Whole: dir == "./"}, bytes.NewReader(archive))
			at.Close(to)
		}
		if err == nil {
			wrote++
		} else {
			failed++
		}
	}
	if after := describe(t, out); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("outside of the root:\nbefore %q\nafter  %q", before, after)
	}
	if wrote == 0 || failed == 0 {
		t.Errorf("wrote %d, failed %d: this was no race", wrote, failed)
	}
}

// FuzzWrite unpacks anything beside something that must stay as it is.
func FuzzWrite(f *testing.F) {
	needRoot(f)
	for _, seed := range [][]entry{
		{file("a/b/c", "x"), link("d", "a/b/c"), directory("a")},
		{symlink("l", ".."), file("l/out/kept", "x")},
		{symlink("l", "/"), symlink("l/x", "y"), file("../x", "")},
		{directory("."), {Header: fifoHeader()}, device("dev")},
	} {
		f.Add(archive(f, seed...).Bytes(), byte(0))
		f.Add(archive(f, seed...).Bytes(), byte(7))
	}
	f.Fuzz(func(t *testing.T, b []byte, how byte) {
		top := t.TempDir()
		dest, out := filepath.Join(top, "dest"), filepath.Join(top, "out")
		must(t, os.Mkdir(dest, 0o755), os.Mkdir(out, 0o755), os.WriteFile(filepath.Join(out, "kept"), []byte("kept"), 0o600))
		before := describe(t, out)
		o := filetree.WriteOptions{Owners: how&1 != 0, NoOverwriteDir: how&2 != 0, Host: how&4 != 0, Whole: how&8 != 0}
		if how&16 != 0 {
			o.IDs = filetree.IDs{Base: 300000, Count: 65536}
		}
		// A sparse file may be as long as a person has patience.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := filetree.Write(ctx, open(t, dest), o, io.LimitReader(bytes.NewReader(b), 1<<20)); err == nil {
			if _, err := read(t, dest, ".", false, filetree.ReadOptions{IDs: o.IDs}); err != nil && !strings.Contains(err.Error(), "longer than") {
				t.Errorf("read what was written: %v", err)
			}
		}
		if after := describe(t, out); strings.Join(before, "\n") != strings.Join(after, "\n") {
			t.Errorf("outside:\nbefore %q\nafter  %q", before, after)
		}
	})
}
