package template

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
)

const size = 4 << 20

var key = strings.Repeat("ab", 32)

// recipe makes a template of two pages.
func recipe(made *atomic.Int32) Recipe {
	return Recipe{
		Key: key, Memory: size, Disk: true, Machine: map[string]string{"cpus": "1"},
		Save: func(_ context.Context, f *Files) (protocol.Hello, error) {
			made.Add(1)
			_, err := f.RAM.WriteAt(bytes.Repeat([]byte("m"), 4096), 1<<20)
			if err == nil {
				_, err = f.State.WriteString("state")
			}
			if err == nil {
				_, err = f.Disk.WriteString("disk")
			}
			return protocol.Hello{Kernel: "6.1"}, err
		},
	}
}

func ensure(t *testing.T, s *Store, r Recipe) {
	t.Helper()
	if err := s.Ensure(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func TestMadeOnce(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "templates"))
	if _, err := s.Open(key); !errors.Is(err, ErrNotFound) {
		t.Errorf("open of nothing: %v", err)
	}
	var made, waited atomic.Int32
	r := recipe(&made)
	r.Wait = func() { waited.Add(1) }
	save := r.Save
	r.Save = func(ctx context.Context, f *Files) (protocol.Hello, error) {
		for waited.Load() < 19 { // all others have come
			time.Sleep(time.Millisecond)
		}
		return save(ctx, f)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := s.Ensure(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
	o, err := s.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if o.Hello.Kernel != "6.1" || o.About.Memory != size || o.Machine["cpus"] != "1" {
		t.Errorf("about: %+v", o.About)
	}
	b := make([]byte, 8)
	if _, err := o.RAM.ReadAt(b, 1<<20); err != nil || string(b) != "mmmmmmmm" {
		t.Errorf("memory %q, %v", b, err)
	}
	if _, err := o.RAM.Write(b); err == nil {
		t.Error("the memory can be written to")
	}
}

func TestDamaged(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"flipped": func(dir string) error {
			// As if the disk had it: the file keeps its inode, and the times are what
			// they were but for ctime, which nobody can set.
			name := dir + "/" + memoryFile
			fi, err := os.Stat(name)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte{'m' ^ 1}, 1<<20+4095)
			return errors.Join(err, os.Chtimes(name, fi.ModTime(), fi.ModTime()))
		},
		"truncated":     func(dir string) error { return os.Truncate(dir+"/"+memoryFile, 1<<20) },
		"state":         func(dir string) error { return os.WriteFile(dir+"/"+stateFile, []byte("other"), 0o400) },
		"disk":          func(dir string) error { return os.WriteFile(dir+"/"+diskFile, []byte("Disk"), 0o400) },
		"no disk":       func(dir string) error { return os.Remove(dir + "/" + diskFile) },
		"no memory":     func(dir string) error { return os.Remove(dir + "/" + memoryFile) },
		"no about":      func(dir string) error { return os.Remove(dir + "/" + aboutFile) },
		"cut about":     func(dir string) error { return os.Truncate(dir+"/"+aboutFile, 10) },
		"other version": func(dir string) error { return os.WriteFile(dir+"/"+aboutFile, []byte(`{"format":99}`), 0o600) },
		"a link": func(dir string) error {
			return errors.Join(os.Rename(dir+"/"+memoryFile, dir+"/x"), os.Symlink("x", dir+"/"+memoryFile))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(t.TempDir())
			var made atomic.Int32
			ensure(t, s, recipe(&made))
			if err := damage(s.path(key)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Open(key); !errors.Is(err, ErrDamaged) {
				t.Errorf("open: %v", err)
			}
			ensure(t, s, recipe(&made))
			if made.Load() != 2 {
				t.Errorf("made %d times", made.Load())
			}
			o, err := s.Open(key)
			if err != nil {
				t.Fatal(err)
			}
			o.Close()
		})
	}
}

// TestVerified: what was verified is not read again in the same boot, what was
// not is.
func TestVerified(t *testing.T) {
	s := New(t.TempDir())
	var made atomic.Int32
	ensure(t, s, recipe(&made))
	if err := os.WriteFile(s.path(key, seenFile), []byte("another boot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := s.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
	if b, err := os.ReadFile(s.path(key, seenFile)); err != nil || strings.HasPrefix(string(b), "another") {
		t.Errorf("seen: %q, %v", b, err)
	}
	// With wrong digests it shows whether they are looked at.
	about := s.path(key, aboutFile)
	b, err := os.ReadFile(about)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(about, bytes.Replace(b, []byte(`"stateDigest": "`), []byte(`"stateDigest": "0`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if o, err := s.Open(key); err != nil {
		t.Errorf("read again: %v", err)
	} else {
		o.Close()
	}
	if err := os.Remove(s.path(key, seenFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(key); !errors.Is(err, ErrDamaged) {
		t.Errorf("not read: %v", err)
	}
}

// TestStateFromTheBeginning opens a template that is verified by its digests: QEMU
// reads the state from where the descriptor that it is given stands.
func TestStateFromTheBeginning(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "templates"))
	state := bytes.Repeat([]byte("state"), 3*piece/5)
	r := recipe(new(atomic.Int32))
	save := r.Save
	r.Save = func(ctx context.Context, f *Files) (protocol.Hello, error) {
		h, err := save(ctx, f)
		_, werr := f.State.WriteAt(state, 0)
		return h, errors.Join(err, werr)
	}
	ensure(t, s, r)
	if err := os.Remove(s.path(key, seenFile)); err != nil {
		t.Fatal(err)
	}
	o, err := s.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for _, f := range []*os.File{o.RAM, o.State, o.Disk} {
		if at, err := f.Seek(0, io.SeekCurrent); at != 0 || err != nil {
			t.Errorf("%s: begins at %d, %v", f.Name(), at, err)
		}
	}
	if got, err := io.ReadAll(o.State); !bytes.Equal(got, state) || err != nil {
		t.Errorf("read %d bytes of the state, want %d; %v", len(got), len(state), err)
	}
}

func TestFailedAndKilled(t *testing.T) {
	s := New(t.TempDir())
	var made atomic.Int32
	r := recipe(&made)
	broken := errors.New("no room")
	r.Save = func(context.Context, *Files) (protocol.Hello, error) { return protocol.Hello{}, broken }
	if err := s.Ensure(t.Context(), r); !errors.Is(err, broken) {
		t.Errorf("ensure: %v", err)
	}
	if left, _ := filepath.Glob(s.path(makingPrefix + "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// One that was killed.
	var cleaned []string
	s.Clean = func(key string) error { cleaned = append(cleaned, key); return nil }
	if err := os.MkdirAll(s.path(makingPrefix+key), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.path(doomedPrefix+"1", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	ensure(t, s, recipe(&made))
	if err := os.MkdirAll(s.path(makingPrefix+strings.Repeat("cd", 32)), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(s.dir)
	for _, e := range left {
		if !strings.HasSuffix(e.Name(), lockSuffix) {
			t.Errorf("left: %s, %v", e.Name(), err)
		}
	}
	if len(cleaned) != 2 || cleaned[0] != key {
		t.Errorf("cleaned up after %v", cleaned)
	}
	// Whoever waits can give up.
	unlock, err := s.lock(t.Context(), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancelCause(context.Background())
	enough := errors.New("enough")
	r = recipe(&made)
	r.Wait = func() { cancel(enough) }
	if err := s.Ensure(ctx, r); !errors.Is(err, enough) {
		t.Errorf("a wait that was called off: %v", err)
	}
}

func TestRemove(t *testing.T) {
	s := New(t.TempDir())
	var made atomic.Int32
	ensure(t, s, recipe(&made))
	o, err := s.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || !all[0].InUse || all[0].Size == 0 || all[0].Err != nil {
		t.Errorf("list: %+v, %v", all, err)
	}
	if err := s.Remove(key, false); !errors.Is(err, ErrInUse) {
		t.Errorf("remove: %v", err)
	}
	if removed, err := s.Prune(); err != nil || len(removed) != 0 {
		t.Errorf("prune: %v, %v", removed, err)
	}
	if err := s.Remove(key, true); err != nil {
		t.Error(err)
	}
	b := make([]byte, 1)
	if _, err := o.RAM.ReadAt(b, 1<<20); err != nil || b[0] != 'm' {
		t.Errorf("a clone lost its memory: %q, %v", b, err)
	}
	o.Close()
	if err := s.Remove(key, true); !errors.Is(err, ErrNotFound) {
		t.Errorf("remove again: %v", err)
	}
	ensure(t, s, recipe(&made))
	if found, err := s.Find("abab"); err != nil || found != key {
		t.Errorf("find: %q, %v", found, err)
	}
	for _, word := range []string{"", "aba", "../x", key + "0"} {
		if _, err := s.Find(word); !errors.Is(err, ErrNotFound) {
			t.Errorf("find %q: %v", word, err)
		}
	}
	if err := s.Remove("../../etc", true); err == nil {
		t.Error("a path was taken for a key")
	}
	if err := s.Remove(key, false); err != nil {
		t.Error(err)
	}
}

// TestRemovedWhileSwept: what is said to be removed is, also while others clean up.
func TestRemovedWhileSwept(t *testing.T) {
	s := New(t.TempDir())
	var made atomic.Int32
	r := recipe(&made)
	var all sync.WaitGroup
	defer all.Wait()
	stop := make(chan struct{})
	defer close(stop)
	for range 2 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := s.sweep(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline) && !t.Failed(); {
		ensure(t, s, r)
		if err := s.Remove(key, false); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(key); !errors.Is(err, ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
	}
}

// TestMost: the templates that were used least recently go.
func TestMost(t *testing.T) {
	s := New(t.TempDir())
	var made atomic.Int32
	var keys []string
	for i := range Most + 2 {
		r := recipe(&made)
		r.Key = strings.Repeat(string("0123456789abcdef"[i]), 64)
		keys = append(keys, r.Key)
		ensure(t, s, r)
		old := time.Now().Add(time.Duration(i-100) * time.Hour)
		if err := os.Chtimes(s.path(r.Key, usedFile), old, old); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != Most {
		t.Fatalf("%d templates, %v", len(all), err)
	}
	for _, k := range keys[:2] {
		if _, err := s.Get(k); !errors.Is(err, ErrNotFound) {
			t.Errorf("the oldest are there: %v", err)
		}
	}
}

// TestDigest: holes and zeros are the same.
func TestDigest(t *testing.T) {
	hole, zeros := filepath.Join(t.TempDir(), "hole"), filepath.Join(t.TempDir(), "zeros")
	if err := errors.Join(os.WriteFile(hole, nil, 0o600), os.Truncate(hole, size), os.WriteFile(zeros, make([]byte, size), 0o600)); err != nil {
		t.Fatal(err)
	}
	sum := func(name string) string {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d, err := digest(f)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if sum(hole) != sum(zeros) {
		t.Error("a hole is not zeros")
	}
	if err := os.Truncate(hole, size+1); err != nil {
		t.Fatal(err)
	}
	if sum(hole) == sum(zeros) {
		t.Error("the size does not count")
	}
}

// TestThereAllTheSame: a template that exists can be used, whatever else cannot be
// done in its directory.
func TestThereAllTheSame(t *testing.T) {
	s := New(t.TempDir())
	stuck := errors.New("stuck")
	s.Clean = func(string) error { return stuck }
	if err := os.Mkdir(s.path(makingPrefix+strings.Repeat("cd", 32)), 0o700); err != nil {
		t.Fatal(err)
	}
	var made atomic.Int32
	r := recipe(&made)
	save := r.Save
	r.Save = func(ctx context.Context, f *Files) (protocol.Hello, error) {
		// No file can be put in the place of a directory.
		if err := os.MkdirAll(filepath.Join(filepath.Dir(f.RAM.Name()), seenFile, "x"), 0o700); err != nil {
			t.Error(err)
		}
		return save(ctx, f)
	}
	for range 2 {
		ensure(t, s, r)
		o, err := s.Open(key)
		if err != nil {
			t.Fatal(err)
		}
		o.Close()
	}
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
	if left, err := filepath.Glob(s.path(key, seenFile+"*")); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := s.Prune(); !errors.Is(err, stuck) {
		t.Errorf("nobody tells of it: %v", err)
	}
}

// TestClockWasOff: what was made and used in the future, by a clock that was off,
// can be used, and goes first when room is wanted.
func TestClockWasOff(t *testing.T) {
	s := New(t.TempDir())
	var made atomic.Int32
	keyOf := func(i int) string { return strings.Repeat(string("0123456789abcdef"[i]), 64) }
	ahead := time.Now().AddDate(60, 0, 0)
	for i := range Most {
		r := recipe(&made)
		r.Key = keyOf(i)
		ensure(t, s, r)
		about := s.path(r.Key, aboutFile)
		b, err := os.ReadFile(about)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.Replace(b, []byte(`"made": "2`), []byte(`"made": "9`), 1) // the year
		if err := errors.Join(os.WriteFile(about, b, 0o600), os.Chtimes(s.path(r.Key, usedFile), ahead, ahead)); err != nil {
			t.Fatal(err)
		}
	}
	o, err := s.Open(keyOf(0)) // with this its time is right
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
	if o.Made.Before(ahead) {
		t.Errorf("made in %v, which is no test", o.Made)
	}
	for i := Most; i < Most+2; i++ {
		r := recipe(&made)
		r.Key = keyOf(i)
		ensure(t, s, r)
	}
	for _, i := range []int{0, Most, Most + 1} {
		if _, err := s.Get(keyOf(i)); err != nil {
			t.Errorf("template %d: %v", i, err)
		}
	}
	if all, err := s.List(); err != nil || len(all) != Most || all[0].Key != keyOf(Most+1) {
		t.Errorf("%d templates, %v, the first is %.12s", len(all), err, all[0].Key)
	}
}

// TestNoDescriptors: a process that can open no file more does not take templates
// for damaged.
func TestNoDescriptors(t *testing.T) {
	s := New(t.TempDir())
	var made atomic.Int32
	ensure(t, s, recipe(&made))
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	}()
	first, err := os.Open(s.dir) // numbers below are taken: from here on, one more can be had
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	few := was
	few.Cur = uint64(first.Fd()) + 2
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	if o, err := s.Open(key); !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrDamaged) {
		t.Errorf("open: %v, %v", o, err)
	}
	if err := s.Ensure(t.Context(), recipe(&made)); !errors.Is(err, syscall.EMFILE) || made.Load() != 1 {
		t.Errorf("ensure: %v, made %d times", err, made.Load())
	}
}

// TestAsked: every start counts, each template by itself, until it is made.
func TestAsked(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "templates"))
	if _, err := s.Asked("../x"); err == nil {
		t.Error("a path is taken for a key")
	}
	var all sync.WaitGroup
	var numbers [20]atomic.Bool
	for range len(numbers) {
		all.Go(func() {
			n, err := s.Asked(key)
			if err != nil || n < 1 || n > len(numbers) || numbers[n-1].Swap(true) {
				t.Errorf("got %d, %v, want each number from 1 to %d once", n, err, len(numbers))
			}
		})
	}
	all.Wait()
	if n, err := s.Asked(key); err != nil || n != 21 {
		t.Errorf("got %d, %v, want 21", n, err)
	}
	var made atomic.Int32
	ensure(t, s, recipe(&made))
	if n, err := s.Asked(key); err != nil || n != 1 {
		t.Errorf("after it was made: got %d, %v, want 1", n, err)
	}
	// The oldest are forgotten.
	if err := os.Chtimes(s.path(askedDir, key), time.Now(), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	for i := range maxAsked {
		if _, err := s.Asked(fmt.Sprintf("%064x", i)); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := os.ReadDir(s.path(askedDir)); err != nil || len(names) != maxAsked {
		t.Errorf("%d counts, %v", len(names), err)
	}
	for _, when := range []string{"the oldest", "pruned"} {
		if n, err := s.Asked(key); err != nil || n != 1 {
			t.Errorf("%s: got %d, %v, want 1", when, n, err)
		}
		if _, err := s.Prune(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUsersByName maps a file whose name looks like a part of the memory map of
// somebody who has a template: a workload chooses its files' names.
func TestUsersByName(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "templates"))
	ensure(t, s, recipe(new(atomic.Int32)))
	memory, err := os.Open(s.path(key, memoryFile))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(memory.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	major, minor := sys.Device(st.Dev)
	other, err := os.Create(filepath.Join(t.TempDir(), fmt.Sprintf("x %02x:%02x %d y", major, minor, st.Ino)))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file *os.File
		want bool
	}{{other, false}, {memory, true}} {
		b, err := syscall.Mmap(int(tt.file.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		users, err := s.Users(key)
		is := slices.ContainsFunc(users, func(u User) bool { return u.PID == os.Getpid() })
		if is != tt.want || err != nil {
			t.Errorf("%s is mapped: a user %v, %v", tt.file.Name(), is, err)
		}
		if err := syscall.Munmap(b); err != nil {
			t.Error(err)
		}
	}
}
