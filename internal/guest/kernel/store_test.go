package kernel

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/kerneltest"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
	"github.com/u-root/u-root/pkg/cpio"
)

const (
	release = "6.1.0-99-test"
	// crashVariable makes the test program a command that is killed while it
	// makes something in the store that the variable names.
	crashVariable = "BULKHEAD_TEST_CRASH_IN"
)

func TestMain(m *testing.M) {
	if root := os.Getenv(crashVariable); root != "" {
		crash(root)
	}
	os.Exit(m.Run())
}

// crash leaves half a kernel in a stage and waits to be killed.
func crash(root string) {
	s, err := Open(root)
	if err == nil {
		var st *stage
		if st, err = s.newStage(context.Background()); err == nil {
			err = errors.Join(os.Mkdir(st.path("kernel"), 0o700), os.WriteFile(st.path("kernel/vmlinux"), []byte("half"), 0o600))
		}
	}
	fmt.Println("ready", err)
	select {}
}

// noFetch is a machine without a network.
type noFetch struct{}

func (noFetch) fetch(context.Context, string, string, Progress) (string, string, error) {
	return "", "", errors.New("no route to host")
}

// fixedFetch hands out a package, and counts.
type fixedFetch struct {
	deb   []byte
	count atomic.Int32
}

func (f *fixedFetch) fetch(_ context.Context, target, have string, _ Progress) (string, string, error) {
	f.count.Add(1)
	if have == "the package" {
		return "", "", nil
	}
	return target, "the package", os.WriteFile(target, f.deb, 0o600)
}

// store opens a store whose machine has no network.
func store(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	s.fetch = noFetch{}
	return s
}

// file writes a file of the test's own.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	kerneltest.Write(t, path, content)
	return path
}

func gzipped(content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(content)
	w.Close()
	return b.Bytes()
}

// tree makes a directory of modules.
func tree(t *testing.T, release string) string {
	t.Helper()
	dir := t.TempDir()
	kerneltest.Modules(t, dir, map[string][]byte{
		"kernel/a.ko": kerneltest.Module(release, "depends=b"),
		"kernel/b.ko": kerneltest.Module(release, "depends="),
	}, "c")
	if err := os.Symlink("/etc", filepath.Join(dir, "build")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// deb makes a kernel package.
func deb(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	image := kerneltest.Image(release)
	kerneltest.Write(t, filepath.Join(dir, "boot", "vmlinuz-"+release), kerneltest.BzImage(release, gzipped(image), len(image)))
	kerneltest.Modules(t, filepath.Join(dir, "lib", "modules", release), map[string][]byte{
		"kernel/a.ko": kerneltest.Module(release, "depends=b"),
		"kernel/b.ko": kerneltest.Module(release, "depends="),
	}, "c")
	file := filepath.Join(t.TempDir(), "kernel.deb")
	kerneltest.Package(t, file, dir)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// leftovers fails if something half made is in the store.
func leftovers(t *testing.T, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(s.path("tmp"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left in tmp: %v, %v", entries, err)
	}
}

func wanted(t *testing.T) Wanted {
	return Wanted{Agent: file(t, "agent", []byte("the agent")), Modules: []string{"a", "c"}}
}

// files lists the names in an archive.
func files(t *testing.T, archive string) []string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(f))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range records {
		names = append(names, r.Name)
	}
	return names
}

func TestAddAndResolve(t *testing.T) {
	ctx := t.Context()
	image := kerneltest.Image(release)
	packed := kerneltest.BzImage(release, gzipped(image), len(image))
	for name, o := range map[string]AddOptions{
		"elf":     {Image: file(t, "vmlinux", image), Modules: tree(t, release)},
		"bzimage": {Image: file(t, "bzImage", packed), Modules: tree(t, release)},
		"deb":     {Image: file(t, "x.deb", deb(t))},
	} {
		t.Run(name, func(t *testing.T) {
			s := store(t, t.TempDir())
			k, err := s.Add(ctx, "mine", o, nil)
			if err != nil {
				t.Fatal(err)
			}
			if k.Name != "mine" || k.Release != release || !k.Default || k.Source != o.Image {
				t.Errorf("added %+v", k)
			}
			if got, err := os.ReadFile(k.Image); err != nil || !bytes.Equal(got, image) {
				t.Errorf("the image has %d bytes, %v, want %d", len(got), err, len(image))
			}
			if _, err := os.Lstat(filepath.Join(k.ModulesDir, "build")); err == nil {
				t.Error("a link out of the modules was kept")
			}
			want := wanted(t)
			r, err := s.Resolve(ctx, "", want, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r.Modules, []string{"b", "a"}) + cmp.Diff(r.Builtin, []string{"c"}); diff != "" {
				t.Error(diff)
			}
			names := files(t, r.Initramfs)
			for _, n := range []string{"init", "modules/a.ko", "modules/b.ko", "modules/order"} {
				if !slices.Contains(names, n) {
					t.Errorf("%s is not among %v", n, names)
				}
			}
			// Once more it is the same file; another agent or list is another.
			if again, err := s.Resolve(ctx, "mine", want, nil); err != nil || again.Initramfs != r.Initramfs || !cmp.Equal(again.Modules, r.Modules) {
				t.Errorf("again: %+v, %v", again, err)
			}
			other := want
			other.Modules = []string{"b"}
			if o, err := s.Resolve(ctx, "mine", other, nil); err != nil || o.Initramfs == r.Initramfs {
				t.Errorf("other modules: %v, %v", o.Initramfs, err)
			}
			kerneltest.Write(t, want.Agent, []byte("another agent"))
			if o, err := s.Resolve(ctx, "mine", want, nil); err != nil || o.Initramfs == r.Initramfs {
				t.Errorf("another agent: %v, %v", o.Initramfs, err)
			}
			leftovers(t, s)
		})
	}
}

func TestResolveFile(t *testing.T) {
	s, ctx, want := store(t, t.TempDir()), t.Context(), wanted(t)
	image := kerneltest.Image(release)
	plain := file(t, "vmlinux", image)
	k, err := s.Resolve(ctx, plain, want, nil)
	if err != nil || k.Image != plain || k.Release != release || k.Source != plain {
		t.Errorf("vmlinux: %+v, %v", k, err)
	}
	if diff := cmp.Diff(k.Builtin, want.Modules); diff != "" || len(k.Modules) > 0 {
		t.Errorf("modules %v, built in %v", k.Modules, k.Builtin)
	}
	packed := file(t, "bzImage", kerneltest.BzImage(release, gzipped(image), len(image)))
	first, err := s.Resolve(ctx, packed, want, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(first.Image); err != nil || !bytes.Equal(got, image) {
		t.Errorf("unpacked %d bytes, %v", len(got), err)
	}
	// Using it leaves it as it is: templates are found by what the file is. What is
	// used stays.
	was := identity(t, first.Image)
	long := time.Now().Add(-2 * keepFor)
	if err := os.Chtimes(filepath.Dir(first.Image), long, long); err != nil {
		t.Fatal(err)
	}
	again, err := s.Resolve(ctx, packed, want, nil)
	if err != nil || again.Image != first.Image {
		t.Fatalf("again: %+v, %v", again, err)
	}
	s.forget("unpacked", imageFile)
	if is := identity(t, again.Image); is != was {
		t.Errorf("after another use it is %s, was %s", is, was)
	}
	// What the cache holds damaged is unpacked again.
	if err := os.Truncate(first.Image, 10); err != nil {
		t.Fatal(err)
	}
	if second, err := s.Resolve(ctx, packed, want, nil); err != nil || second.Image != first.Image || second.Size != int64(len(image)) {
		t.Errorf("again: %+v, %v", second, err)
	}
	// An older version had the image itself there.
	dir := filepath.Dir(first.Image)
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, image, 0o600)); err != nil {
		t.Fatal(err)
	}
	if second, err := s.Resolve(ctx, packed, want, nil); err != nil || second.Image != first.Image || second.Size != int64(len(image)) {
		t.Errorf("beside an older version's: %+v, %v", second, err)
	}
	old := s.path("unpacked", "old")
	if err := errors.Join(os.WriteFile(old, image, 0o600), os.Chtimes(old, long, long), os.Chtimes(dir, long, long)); err != nil {
		t.Fatal(err)
	}
	s.forget("unpacked", imageFile)
	if left, err := os.ReadDir(s.path("unpacked")); err != nil || len(left) > 0 {
		t.Errorf("what nobody used for long is left: %v, %v", left, err)
	}
	leftovers(t, s)
}

// identity is what a file is, for a template that is made from it.
func identity(t *testing.T, name string) string {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	id, err := sys.Identity(fi)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestMMIO: it is known of a kernel however it is named.
func TestMMIO(t *testing.T) {
	s := store(t, t.TempDir())
	for _, want := range []bool{false, true} {
		image := kerneltest.Image(release)
		if want {
			image = kerneltest.Image(release, "virtio_mmio.device\x00")
		}
		name := fmt.Sprint("kernel-", want)
		elf := file(t, name, image)
		packed := file(t, name, kerneltest.BzImage(release, gzipped(image), len(image)))
		if _, err := s.Add(t.Context(), name, AddOptions{Image: packed}, nil); err != nil {
			t.Fatal(err)
		}
		for _, from := range []string{name, elf, packed} {
			k, err := s.Resolve(t.Context(), from, wanted(t), nil)
			if err != nil || k.MMIO != want {
				t.Errorf("%s: got %v, %v, want %v", from, k.MMIO, err, want)
			}
		}
	}
}

// TestReadable: a VMM runs as a user of its own and opens these by name; a start
// would have to copy what it may not read.
func TestReadable(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	s := store(t, t.TempDir())
	if _, err := s.Add(t.Context(), "k", AddOptions{Image: file(t, "k", kerneltest.Image(release))}, nil); err != nil {
		t.Fatal(err)
	}
	k, err := s.Resolve(t.Context(), "k", wanted(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{k.Image, k.Initramfs} {
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o644 {
			t.Errorf("%s: mode %v, %v, want 0644", name, info.Mode(), err)
		}
	}
}

func TestBadKernels(t *testing.T) {
	s, ctx := store(t, t.TempDir()), t.Context()
	image := kerneltest.Image(release)
	arm := bytes.Clone(image)
	arm[18] = 183
	noPVH := bytes.Clone(image)
	noPVH[kerneltest.Note+12] = 'x'
	packed := kerneltest.BzImage(release, gzipped(arm), len(arm))
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		image, want string
		is          error
	}{
		"missing":    {"/nonexistent/vmlinux", "no such kernel: /nonexistent/vmlinux", ErrNotFound},
		"text":       {file(t, "k", []byte("hello")), "it is neither an ELF image nor a bzImage", ErrInvalid},
		"empty":      {file(t, "k", nil), "the file is empty", ErrInvalid},
		"arm64":      {file(t, "k", arm), "it is built for arm64, and guests here are x86-64", ErrInvalid},
		"packed arm": {file(t, "k", packed), "it is built for arm64, and guests here are x86-64", ErrInvalid},
		"no PVH":     {file(t, "k", noPVH), "it has no PVH entry note; a kernel needs CONFIG_PVH=y", ErrInvalid},
		"cut":        {file(t, "k", image[:len(image)-5]), "the file is cut off", ErrInvalid},
		"cut packed": {file(t, "k", packed[:len(packed)-5]), "the file is cut off", ErrInvalid},
		"directory":  {filepath.Dir(fifo), "it is not a plain file", ErrInvalid},
		"fifo":       {fifo, "it is not a plain file", ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, resolveErr := s.Resolve(ctx, c.image, wanted(t), nil)
			_, addErr := s.Add(ctx, "bad", AddOptions{Image: c.image}, nil)
			for how, err := range map[string]error{"resolve": resolveErr, "add": addErr} {
				if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.is) {
					t.Errorf("%s: %v, want %q", how, err, c.want)
				} else if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), c.image) {
					t.Errorf("%s: %q is not one line that names the file", how, err)
				}
			}
		})
	}
	if list, err := s.List(); err != nil || len(list) > 0 {
		t.Errorf("stored: %v, %v", list, err)
	}
	leftovers(t, s)
}

func TestMissingModules(t *testing.T) {
	s, ctx := store(t, t.TempDir()), t.Context()
	image := file(t, "vmlinux", kerneltest.Image(release))
	if _, err := s.Add(ctx, "none", AddOptions{Image: image, Modules: t.TempDir()}, nil); !errors.Is(err, ErrModule) {
		t.Errorf("a directory without modules: %v", err)
	}
	if _, err := s.Add(ctx, "mine", AddOptions{Image: image, Modules: tree(t, release)}, nil); err != nil {
		t.Fatal(err)
	}
	want := wanted(t)
	want.Modules = []string{"a", "erofs"}
	if _, err := s.Resolve(ctx, "mine", want, nil); !errors.Is(err, ErrModule) || !strings.Contains(err.Error(), "erofs: module missing") {
		t.Errorf("a module that is not there: %v", err)
	}
	if _, err := s.Add(ctx, "other", AddOptions{Image: image, Modules: tree(t, "5.10.0")}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(ctx, "other", wanted(t), nil); err == nil || !strings.Contains(err.Error(), "made for kernel 5.10.0") {
		t.Errorf("modules of another kernel: %v", err)
	}
	want.Agent = "/nonexistent/agent"
	if _, err := s.Resolve(ctx, "mine", want, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no agent: %v", err)
	}
	leftovers(t, s)
}

func TestNames(t *testing.T) {
	s, ctx := store(t, t.TempDir()), t.Context()
	o := AddOptions{Image: file(t, "vmlinux", kerneltest.Image(release))}
	for _, bad := range []string{"", ".", "..", ".x", "a/b", "a b", "-x", "ä", strings.Repeat("a", 65)} {
		if _, err := s.Add(ctx, bad, o, nil); err == nil {
			t.Errorf("the name %q was taken", bad)
		}
		if err := s.Remove(ctx, bad); !errors.Is(err, ErrNotFound) {
			t.Errorf("remove %q: %v", bad, err)
		}
	}
	for _, name := range []string{"first", "second"} {
		if _, err := s.Add(ctx, name, o, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Add(ctx, "first", o, nil); !errors.Is(err, ErrExists) {
		t.Errorf("a name twice: %v", err)
	}
	if err := s.Use(ctx, "third"); !errors.Is(err, ErrNotFound) {
		t.Errorf("use of what is not there: %v", err)
	}
	if err := s.Remove(ctx, "first"); !errors.Is(err, ErrInUse) {
		t.Errorf("remove the default: %v", err)
	}
	if err := s.Use(ctx, "second"); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(ctx, "first", wanted(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	replace := o
	replace.Replace = true
	if k, err := s.Add(ctx, "first", replace, nil); err != nil || k.ID == r.ID {
		t.Errorf("replace: %+v, %v", k, err)
	}
	if err := s.Remove(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Name != "second" || !list[0].Default {
		t.Errorf("left: %+v, %v", list, err)
	}
	if err := s.Remove(ctx, "second"); err != nil {
		t.Errorf("remove the last: %v", err)
	}
	if _, err := s.Get(""); !errors.Is(err, ErrNotFound) {
		t.Errorf("the default afterwards: %v", err)
	}
	leftovers(t, s)
}

func TestNoKernelAndNoNetwork(t *testing.T) {
	s := store(t, t.TempDir())
	_, err := s.Resolve(t.Context(), "", wanted(t), nil)
	want := "no guest kernel is here, and the distribution's cannot be fetched: no route to host"
	if !errors.Is(err, ErrFetch) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	leftovers(t, s)
}

// TestTwentyAtOnce starts with an empty store, as twenty commands would: each
// opens the store for itself. One fetch, and everybody has the same.
func TestTwentyAtOnce(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{})
	root, want := t.TempDir(), wanted(t)
	f := &fixedFetch{deb: deb(t)}
	var group sync.WaitGroup
	results := make([]Kernel, 20)
	for i := range results {
		group.Go(func() {
			s, err := Open(root)
			if err != nil {
				t.Error(err)
				return
			}
			s.fetch = f
			k, err := s.Resolve(t.Context(), "", want, nil)
			if err != nil {
				t.Error(err)
				return
			}
			results[i] = k
			if len(files(t, k.Initramfs)) == 0 {
				t.Error("an empty archive was visible")
			}
		})
	}
	group.Wait()
	for _, k := range results {
		if diff := cmp.Diff(k, results[0]); diff != "" {
			t.Error(diff)
		}
	}
	if n := f.count.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	if results[0].Name != defaultName || results[0].Source != "the package" {
		t.Errorf("%+v", results[0])
	}
	s := store(t, root)
	if archives, err := os.ReadDir(s.path("initramfs")); err != nil || len(archives) != 1 {
		t.Errorf("archives: %v, %v", archives, err)
	}
	leftovers(t, s)
}

// TestAddAndRemoveAtOnce has readers that must see whole kernels or none.
func TestAddAndRemoveAtOnce(t *testing.T) {
	root := t.TempDir()
	o := AddOptions{Image: file(t, "vmlinux", kerneltest.Image(release)), Modules: tree(t, release), Replace: true}
	if _, err := store(t, root).Add(t.Context(), "keep", o, nil); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			s := store(t, root)
			for range 5 {
				if _, err := s.Add(t.Context(), "mine", o, nil); err != nil && !errors.Is(err, ErrNotFound) {
					t.Error("add:", err)
				}
				list, err := s.List()
				if err != nil {
					t.Error("list:", err)
				}
				for _, k := range list {
					if k.Release != release || k.ModulesDir == "" {
						t.Errorf("half a kernel: %+v", k)
					}
				}
				if err := s.Remove(t.Context(), "mine"); err != nil && !errors.Is(err, ErrNotFound) {
					t.Error("remove:", err)
				}
			}
		})
	}
	group.Wait()
	leftovers(t, store(t, root))
}

func TestUpdate(t *testing.T) {
	s := store(t, t.TempDir())
	f := &fixedFetch{deb: deb(t)}
	s.fetch = f
	k, newer, err := s.Update(t.Context(), nil)
	if err != nil || !newer || k.Name != defaultName {
		t.Errorf("first: %+v, %v, %v", k, newer, err)
	}
	if k, newer, err := s.Update(t.Context(), nil); err != nil || newer || k.Name != defaultName {
		t.Errorf("second: %+v, %v, %v", k, newer, err)
	}
	if n := f.count.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	leftovers(t, s)
}

// TestKilled kills a command with SIGKILL while it adds a kernel. The next one
// removes what it left; while it lives, nobody touches it.
func TestKilled(t *testing.T) {
	root := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashVariable+"="+root)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line := make([]byte, 100)
	n, _ := out.Read(line)
	if string(line[:n]) != "ready <nil>\n" {
		t.Fatalf("the child says %q", line[:n])
	}
	s, o := store(t, root), AddOptions{Image: file(t, "vmlinux", kerneltest.Image(release))}
	if _, err := s.Add(t.Context(), "one", o, nil); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(s.path("tmp")); err != nil || len(entries) != 1 {
		t.Errorf("while the command lives: %v, %v", entries, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := os.WriteFile(s.path("tmp", defaultPrefix+"1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), "two", o, nil); err != nil {
		t.Fatal(err)
	}
	leftovers(t, s)
	if list, err := s.List(); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestDamagedRecord: a kernel whose record cannot be read can be removed.
func TestDamagedRecord(t *testing.T) {
	s := store(t, t.TempDir())
	image := file(t, "vmlinux", kerneltest.Image(release))
	for _, name := range []string{"first", "bad"} {
		if _, err := s.Add(t.Context(), name, AddOptions{Image: image}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.own("bad"), recordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(); err == nil || !strings.Contains(err.Error(), "kernel bad, which `bulkhead kernel rm` removes") {
		t.Errorf("list: got %v", err)
	}
	if err := s.Remove(t.Context(), "bad"); err != nil {
		t.Errorf("remove: %v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 1 || !all[0].Default {
		t.Errorf("got %v, %v", all, err)
	}
	leftovers(t, s)
}

// TestKilledBeforeChosen has a store with a kernel that a killed command did not get
// to make the default, or was about to remove.
func TestKilledBeforeChosen(t *testing.T) {
	s := store(t, t.TempDir())
	image := file(t, "vmlinux", kerneltest.Image(release))
	if _, err := s.Add(t.Context(), "own", AddOptions{Image: image}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.path("default")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		k, err := s.Resolve(t.Context(), "", wanted(t), nil)
		if err != nil || k.Name != "own" || !k.Default {
			t.Errorf("got %q, default %v, %v", k.Name, k.Default, err)
		}
	}
	leftovers(t, s)
}

// TestCalledOff ends a command's context while another one holds the lock.
func TestCalledOff(t *testing.T) {
	leakcheck.Check(t, leakcheck.Options{Wait: 5 * time.Second})
	root := t.TempDir()
	unlock, err := store(t, root).lock(t.Context(), "fetch.lock", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := false
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := store(t, root).lock(ctx, "fetch.lock", func() { waiting = true }); !errors.Is(err, context.Canceled) || !waiting {
		t.Errorf("got %v, waiting %v", err, waiting)
	}
	unlock()
	again, err := store(t, root).lock(t.Context(), "fetch.lock", nil)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestDamagedImage(t *testing.T) {
	s, ctx := store(t, t.TempDir()), t.Context()
	k, err := s.Add(ctx, "mine", AddOptions{Image: file(t, "vmlinux", kerneltest.Image(release))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(k.Image, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(ctx, "mine", wanted(t), nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
}

// TestNetworkModules: what only a network device needs is listed by itself, and
// a kernel that lacks it still boots what has none.
func TestNetworkModules(t *testing.T) {
	ctx, s := t.Context(), store(t, t.TempDir())
	const release = "6.1.0-test"
	image := file(t, "vmlinux", kerneltest.Image(release))
	if _, err := s.Add(ctx, "mine", AddOptions{Image: image, Modules: tree(t, release)}, nil); err != nil {
		t.Fatal(err)
	}
	for name, network := range map[string]string{"a": "/modules/a.ko\n", "nobody": ""} {
		want := wanted(t)
		want.Modules, want.Network = []string{"b"}, []string{name}
		k, err := s.Resolve(ctx, "mine", want, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(k.Initramfs)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte("modules/order\x00")) || bytes.Contains(b, []byte("/modules/b.ko\n/modules/a.ko")) {
			t.Errorf("%s: the list of modules", name)
		}
		if has := bytes.Contains(b, []byte("modules/network\x00")); has != (network != "") || !bytes.Contains(b, []byte(network)) {
			t.Errorf("%s: a list for networks: %v", name, has)
		}
	}
}

// TestReplacedWhileUsed: what a machine boots from stays, under its path, while its
// supervisor has it marked, and goes when nobody has and the next one looks.
func TestReplacedWhileUsed(t *testing.T) {
	s, ctx, want := store(t, t.TempDir()), t.Context(), wanted(t)
	o := AddOptions{Image: file(t, "vmlinux", kerneltest.Image(release)), Modules: tree(t, release), Replace: true}
	resolve := func() Kernel {
		t.Helper()
		if _, err := s.Add(ctx, "mine", o, nil); err != nil {
			t.Fatal(err)
		}
		k, err := s.Resolve(ctx, "mine", want, nil)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	wantThere := func(k Kernel, there bool) {
		t.Helper()
		for _, name := range []string{k.Image, k.Initramfs, k.ModulesDir} {
			if _, err := os.Stat(name); (err == nil) != there {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	mark := func(k Kernel) (release func()) {
		t.Helper()
		var marked []*os.File
		for _, name := range []string{k.Image, k.Initramfs} {
			f, err := os.Open(name)
			if err == nil {
				err = sys.MarkUsed(f)
			}
			if err != nil {
				t.Fatal(err)
			}
			marked = append(marked, f)
		}
		return func() { marked[0].Close(); marked[1].Close() }
	}
	unused := resolve()
	first := resolve()
	wantThere(unused, false)
	releaseFirst := mark(first)
	second := resolve()
	releaseSecond := mark(second)
	if err := s.Remove(ctx, "mine"); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) > 0 {
		t.Errorf("listed: %+v, %v", list, err)
	}
	wantThere(first, true)
	wantThere(second, true)
	releaseFirst()
	third := resolve()
	wantThere(first, false)
	wantThere(second, true)
	releaseSecond()
	if _, err := s.Resolve(ctx, "mine", want, nil); err != nil {
		t.Fatal(err)
	}
	wantThere(second, false)
	wantThere(third, true)

	// Of a command that was killed before it could give the name.
	if err := os.Mkdir(s.path("store", ownPrefix+"half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(ctx, "mine", want, nil); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.path("store")); err != nil || len(left) != 2 {
		t.Errorf("left: %v, %v", left, err)
	}

	// What is used is not old.
	releaseThird := mark(third)
	long := time.Now().Add(-2 * keepFor)
	if err := os.Chtimes(filepath.Dir(third.Initramfs), long, long); err != nil {
		t.Fatal(err)
	}
	s.forget("initramfs", archiveFile)
	wantThere(third, true)
	releaseThird()
	s.forget("initramfs", archiveFile)
	if _, err := os.Stat(third.Initramfs); err == nil {
		t.Error("an old archive is kept")
	}
	leftovers(t, s)
}

// TestOlderStore: an older version kept a kernel in the directory of its name.
func TestOlderStore(t *testing.T) {
	s, ctx, want := store(t, t.TempDir()), t.Context(), wanted(t)
	o := AddOptions{Image: file(t, "vmlinux", kerneltest.Image(release)), Modules: tree(t, release), Replace: true}
	older := func() {
		t.Helper()
		k, err := s.Add(ctx, "mine", o, nil)
		if err != nil {
			t.Fatal(err)
		}
		link := s.path("store", "mine")
		if err := errors.Join(os.Remove(link), os.Rename(filepath.Dir(k.Image), link)); err != nil {
			t.Fatal(err)
		}
	}
	older()
	k, err := s.Resolve(ctx, "", want, nil)
	if err != nil || k.Image != s.path("store", ownPrefix+k.ID, imageFile) {
		t.Fatalf("%+v, %v", k, err)
	}
	byName := s.path("store", "mine", imageFile) // where an older supervisor looks
	if a, b := mustStat(t, byName), mustStat(t, k.Image); !os.SameFile(a, b) {
		t.Error("its name leads elsewhere")
	}
	if again, err := s.Resolve(ctx, "mine", want, nil); err != nil || again.Initramfs != k.Initramfs {
		t.Errorf("again: %+v, %v", again, err)
	}
	if now, err := s.Add(ctx, "mine", o, nil); err != nil || now.ID == k.ID {
		t.Errorf("replaced: %+v, %v", now, err)
	}
	if _, err := os.Stat(k.Initramfs); err == nil {
		t.Error("the archive is left")
	}
	// A machine that runs keeps image and archive.
	older()
	if k, err = s.Resolve(ctx, "", want, nil); err != nil {
		t.Fatal(err)
	}
	var marks []*os.File
	for _, name := range []string{k.Image, k.Initramfs} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := sys.MarkUsed(f); err != nil {
			t.Fatal(err)
		}
		marks = append(marks, f)
	}
	was := []os.FileInfo{mustStat(t, k.Image), mustStat(t, k.Initramfs)}
	if _, err := s.Add(ctx, "mine", o, nil); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{k.Image, k.Initramfs} {
		if fi, err := os.Stat(name); err != nil || !os.SameFile(fi, was[i]) {
			t.Errorf("%s of a machine that runs is not what it was: %v", name, err)
		}
		marks[i].Close()
	}
	// What one left that was killed in the middle is no hindrance.
	older()
	if k, err = s.read("mine"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(ownPrefix+k.ID, s.path("store", ownPrefix+k.ID)); err != nil {
		t.Fatal(err)
	}
	if k, err = s.Resolve(ctx, "mine", want, nil); err != nil || k.Image != s.path("store", ownPrefix+k.ID, imageFile) {
		t.Errorf("%+v, %v", k, err)
	}
	older()
	if err := s.Remove(ctx, "mine"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(s.path("store")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	leftovers(t, s)
}

func mustStat(t *testing.T, name string) os.FileInfo {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return fi
}
