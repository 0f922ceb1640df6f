package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// The test binary is also a command that is killed after a step.
const (
	envRoot = "VOLUME_TEST_ROOT"
	envOp   = "VOLUME_TEST_OP"   // "create", "fill" or "remove"
	envKill = "VOLUME_TEST_KILL" // the step
	envList = "VOLUME_TEST_LIST" // a file for the names of all steps
)

func TestMain(m *testing.M) {
	root := os.Getenv(envRoot)
	if root == "" {
		os.Exit(m.Run())
	}
	Step = func(name string) {
		if list := os.Getenv(envList); list != "" {
			if f, err := os.OpenFile(list, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
				fmt.Fprintln(f, name)
				f.Close()
			}
		}
		if name == os.Getenv(envKill) {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s := Open(root)
	var err error
	switch os.Getenv(envOp) {
	case "create":
		_, _, err = s.Create(Volume{Name: "v"})
	case "fill":
		err = s.Fill(context.Background(), "v", twoFiles)
	case "remove":
		err = s.Remove("v", nobody)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func nobody() ([]string, error) { return nil, nil }

// twoFiles is content for Fill.
func twoFiles(dir *os.File) (bool, error) {
	for _, n := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir.Name(), n), []byte(n), 0o640); err != nil {
			return false, err
		}
		did("test: file written")
	}
	return true, os.Chmod(dir.Name(), 0o750)
}

func newStore(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	leakcheck.Check(t, leakcheck.Options{Paths: []string{dir}})
	return Open(dir)
}

func (s *Store) mustCreate(t *testing.T, v Volume) {
	t.Helper()
	if _, made, err := s.Create(v); err != nil || !made {
		t.Fatalf("create %s: made %v, %v", v.Name, made, err)
	}
}

// content lists the files of a volume.
func (s *Store) content(t *testing.T, name string) string {
	t.Helper()
	entries, err := os.ReadDir(s.Data(name))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestLife(t *testing.T) {
	s := newStore(t)
	if all, err := s.List(); err != nil || all != nil {
		t.Errorf("before the first: got %v, %v", all, err)
	}
	if _, err := s.Get("v"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := s.Remove("v", nobody); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	s.mustCreate(t, Volume{Name: "v", Labels: map[string]string{"a": "b"}})
	s.mustCreate(t, Volume{Name: "anon", Anonymous: true})
	v, made, err := s.Create(Volume{Name: "v", Labels: map[string]string{"other": ""}})
	if err != nil || made || v.Labels["a"] != "b" || v.Created.IsZero() {
		t.Errorf("a second time: got %+v, %v, %v", v, made, err)
	}
	all, err := s.List()
	if err != nil || len(all) != 2 || all[0].Name != "anon" || !all[0].Anonymous || all[1].Name != "v" {
		t.Errorf("list: got %+v, %v", all, err)
	}
	if fi, err := os.Stat(s.Data("v")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("its root: %v, %v", fi, err)
	}
	err = s.Remove("v", func() ([]string, error) { return []string{"workload web"}, nil })
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "workload web") {
		t.Errorf("got %v", err)
	}
	if err := s.Remove("v", func() ([]string, error) { return nil, os.ErrPermission }); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
	for _, n := range []string{"v", "anon"} {
		if err := s.Remove(n, nobody); err != nil {
			t.Error(err)
		}
	}
	s.wantOnly(t)
}

// wantOnly fails when the store holds anything but these volumes.
func (s *Store) wantOnly(t *testing.T, want ...string) {
	t.Helper()
	names, _ := readNames(s.dir)
	for _, n := range names {
		found := n == lockFile
		for _, w := range want {
			found = found || n == w
		}
		if !found {
			t.Errorf("left behind: %s", n)
		}
	}
}

func TestNames(t *testing.T) {
	s := newStore(t)
	for name, ok := range map[string]bool{
		"a": true, "A-b_c.9": true, strings.Repeat("x", 200): true,
		"": false, ".": false, "..": false, ".a": false, "-a": false, "a/b": false, "../a": false, "a\x00": false, "a\n": false, "ä": false,
		strings.Repeat("x", 201): false,
		"lock":                   false, "locks": true, "Lock": true, "data": true, // of the names in the store's own directories
	} {
		_, _, err := s.Create(Volume{Name: name})
		if (err == nil) != ok || !ok && !errors.Is(err, ErrName) {
			t.Errorf("%q: got %v", name, err)
		}
		if ok {
			continue
		}
		_, getErr := s.Get(name)
		for _, err := range []error{getErr, s.Remove(name, nobody), s.Fill(t.Context(), name, twoFiles)} {
			if !errors.Is(err, ErrName) {
				t.Errorf("%q: got %v", name, err)
			}
		}
	}
}

// TestDamaged reads what a power cut, or a person, may leave of a record.
func TestDamaged(t *testing.T) {
	s := newStore(t)
	s.mustCreate(t, Volume{Name: "good"})
	for name, text := range map[string]string{
		"blank": "", "cut": `{"name":"cu`, "other": `{"name":"good"}`, "list": "[]", "number": `{"name":5}`, "huge": strings.Repeat(" ", maxRecord+1),
	} {
		s.mustCreate(t, Volume{Name: name})
		if err := os.WriteFile(s.path(name, recordFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(name); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, _, err := s.Create(Volume{Name: name}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: create: got %v", name, err)
		}
		if err := s.Fill(t.Context(), name, twoFiles); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: fill: got %v", name, err)
		}
		all, err := s.List()
		if len(all) != 1 || all[0].Name != "good" || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: list: got %v, %v", name, all, err)
		}
		if err := s.Remove(name, nobody); err != nil {
			t.Errorf("%s: remove: %v", name, err)
		}
	}
	// A link in the place of a volume or of its data leads nowhere.
	if err := os.Symlink("/etc", s.path("link")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("link"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	s.mustCreate(t, Volume{Name: "v"})
	if err := errors.Join(os.Remove(s.Data("v")), os.Symlink("/etc", s.Data("v"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ready(t.Context(), "v"); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestFillOnce(t *testing.T) {
	s := newStore(t)
	s.mustCreate(t, Volume{Name: "v"})
	calls := 0
	give := func(dir *os.File) (bool, error) { calls++; return twoFiles(dir) }
	nothing := func(*os.File) (bool, error) { calls++; return false, nil }
	for _, g := range []func(*os.File) (bool, error){nothing, give, give} {
		if err := s.Fill(t.Context(), "v", g); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.content(t, "v"); calls != 2 || got != "a b" {
		t.Errorf("asked %d times, has %q", calls, got)
	}
	if fi, err := os.Stat(s.Data("v")); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("its root: %v, %v", fi.Mode(), err)
	}
	// Once is once, also when somebody has emptied it.
	os.Remove(filepath.Join(s.Data("v"), "a"))
	os.Remove(filepath.Join(s.Data("v"), "b"))
	if err := s.Fill(t.Context(), "v", give); err != nil || calls != 2 {
		t.Errorf("got %v, asked %d times", err, calls)
	}
	// What has something in it is not fresh.
	s.mustCreate(t, Volume{Name: "used"})
	if err := os.WriteFile(filepath.Join(s.Data("used"), "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(t.Context(), "used", give); err != nil || calls != 2 {
		t.Errorf("got %v, asked %d times", err, calls)
	}
	s.wantOnly(t, "v", "used")
}

func TestFillFails(t *testing.T) {
	s := newStore(t)
	s.mustCreate(t, Volume{Name: "v"})
	err := s.Fill(t.Context(), "v", func(dir *os.File) (bool, error) {
		_, err := twoFiles(dir)
		return false, errors.Join(err, os.ErrPermission)
	})
	if !errors.Is(err, os.ErrPermission) || s.content(t, "v") != "" {
		t.Errorf("got %v, and %q", err, s.content(t, "v"))
	}
	if _, err := os.Lstat(s.path("v", fillingDir)); err == nil {
		t.Error("what was begun is still there")
	}
	if err := s.Fill(t.Context(), "v", twoFiles); err != nil || s.content(t, "v") != "a b" {
		t.Errorf("then: got %v, and %q", err, s.content(t, "v"))
	}
}

// TestFillKeepsWhatWorkloadsWrote: a workload that has the volume without
// content of an image writes to it while another command fills it.
func TestFillKeepsWhatWorkloadsWrote(t *testing.T) {
	s := newStore(t)
	s.mustCreate(t, Volume{Name: "v"})
	err := s.Fill(t.Context(), "v", func(dir *os.File) (bool, error) {
		if err := os.WriteFile(filepath.Join(s.Data("v"), "a"), []byte("mine"), 0o600); err != nil {
			return false, err
		}
		return twoFiles(dir)
	})
	b, rerr := os.ReadFile(filepath.Join(s.Data("v"), "a"))
	if err != nil || rerr != nil || string(b) != "mine" {
		t.Errorf("got %v, %q, %v", err, b, rerr)
	}
}

// TestTwoFill lets many fill, make and remove one volume at the same time.
func TestTwoFill(t *testing.T) {
	s := newStore(t)
	s.mustCreate(t, Volume{Name: "v"})
	var wg sync.WaitGroup
	var mu sync.Mutex
	calls := 0
	for range 8 {
		wg.Go(func() {
			err := s.Fill(t.Context(), "v", func(dir *os.File) (bool, error) {
				mu.Lock()
				calls++
				mu.Unlock()
				return twoFiles(dir)
			})
			if got := s.content(t, "v"); err != nil || got != "a b" {
				t.Errorf("got %v, has %q", err, got)
			}
		})
	}
	wg.Wait()
	if calls != 1 {
		t.Errorf("filled %d times", calls)
	}
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if _, _, err := s.Create(Volume{Name: "w", Anonymous: true}); err != nil {
					t.Error(err)
				}
				if err := s.Remove("w", nobody); err != nil && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.wantOnly(t, "v")
}

// child runs one operation in a process of its own.
func child(t *testing.T, root, op string, env ...string) error {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, envRoot+"="+root, envOp+"="+op)...)
	out, err := cmd.CombinedOutput()
	if len(out) > 0 {
		t.Logf("%s: %s", op, out)
	}
	return err
}

// TestKilled ends each operation with SIGKILL after each of its steps. A volume
// is then there or not, has all of the content or none, and the next commands
// leave nothing of the rest.
func TestKilled(t *testing.T) {
	for _, op := range []string{"create", "fill", "remove"} {
		prepare := func(t *testing.T) *Store {
			s := newStore(t)
			if op != "create" {
				s.mustCreate(t, Volume{Name: "v"})
			}
			if op == "remove" {
				if err := s.Fill(t.Context(), "v", twoFiles); err != nil {
					t.Fatal(err)
				}
			}
			return s
		}
		list := filepath.Join(t.TempDir(), "steps")
		if err := child(t, filepath.Dir(prepare(t).dir), op, envList+"="+list); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			t.Run(op+"/"+step, func(t *testing.T) {
				s := prepare(t)
				if err := child(t, filepath.Dir(s.dir), op, envKill+"="+step); err == nil {
					t.Fatal("it was not killed")
				}
				checkHealed(t, s, op)
			})
		}
	}
}

// TestKilledAfterTheRecord changes a volume whose filling was recorded, and not yet
// cleared away.
func TestKilledAfterTheRecord(t *testing.T) {
	s := newStore(t)
	s.mustCreate(t, Volume{Name: "v"})
	if err := child(t, filepath.Dir(s.dir), "fill", envKill+"=fill: recorded"); err == nil {
		t.Fatal("it was not killed")
	}
	// As if a workload had made its own meanwhile.
	if err := os.WriteFile(s.path("v", filledDir, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(s.Data("v"), "a")), os.Chmod(s.Data("v"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ready(t.Context(), "v"); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(s.Data("v")); err != nil || fi.Mode().Perm() != 0o700 || s.content(t, "v") != "b" {
		t.Errorf("what a workload removed and changed came back: %v, %v, has %q", fi.Mode(), err, s.content(t, "v"))
	}
	if _, err := os.Lstat(s.path("v", filledDir)); err == nil {
		t.Error("the content is still kept")
	}
}

// checkHealed does what the next commands do.
func checkHealed(t *testing.T, s *Store, op string) {
	t.Helper()
	if all, err := s.List(); err != nil || len(all) > 1 {
		t.Errorf("list: %v, %v", all, err)
	}
	if op == "fill" {
		if _, err := s.Ready(t.Context(), "v"); err != nil {
			t.Error(err)
		}
		if got := s.content(t, "v"); got != "" && got != "a b" {
			t.Errorf("a part of the content: %q", got)
		}
		if err := s.Clear("v"); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := s.Create(Volume{Name: "v"}); err != nil {
		t.Error(err)
	}
	if err := s.Fill(t.Context(), "v", twoFiles); err != nil || s.content(t, "v") != "a b" {
		t.Errorf("fill: %v, has %q", err, s.content(t, "v"))
	}
	for _, d := range []string{fillingDir, filledDir} {
		if _, err := os.Lstat(s.path("v", d)); err == nil {
			t.Errorf("%s is still there", d)
		}
	}
	if err := s.Remove("v", nobody); err != nil {
		t.Error(err)
	}
	s.wantOnly(t)
}

// TestDiskFull makes and fills volumes with ever more room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=700"); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	s := Open(dir)
	refused, whole := 0, 0
	for blocks := range 12 {
		fillDisk(t, filepath.Join(dir, "filler"), blocks)
		_, _, err := s.Create(Volume{Name: "v"})
		if err == nil {
			err = s.Fill(t.Context(), "v", twoFiles)
			if got := s.content(t, "v"); got != "" && got != "a b" || err == nil && got == "" {
				t.Errorf("%d blocks: %v, has %q", blocks, err, got)
			}
		}
		switch {
		case err == nil:
			whole++
		case errors.Is(err, syscall.ENOSPC):
			refused++
		default:
			t.Errorf("%d blocks: %v", blocks, err)
		}
		if err := s.Remove("v", nobody); err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("%d blocks: remove: %v", blocks, err)
		}
		s.wantOnly(t)
	}
	if refused == 0 || whole == 0 {
		t.Errorf("%d refused, %d whole: want some of each", refused, whole)
	}
}

// fillDisk leaves so many blocks of 4 KiB free.
func fillDisk(t *testing.T, filler string, blocks int) {
	t.Helper()
	os.Remove(filler)
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := int64(0)
	for {
		m, err := f.Write(make([]byte, 4096))
		n += int64(m)
		if err != nil {
			break
		}
	}
	if err := f.Truncate(n/4096*4096 - int64(blocks)*4096); err != nil {
		t.Fatal(err)
	}
}

func TestUsage(t *testing.T) {
	s := newStore(t)
	s.mustCreate(t, Volume{Name: "v"})
	empty, err := s.Usage(t.Context(), "v")
	if err != nil {
		t.Fatal(err)
	}
	data := s.Data("v")
	big := filepath.Join(data, "big")
	if err := errors.Join(
		os.WriteFile(big, make([]byte, 1<<20), 0o600),
		os.Link(big, filepath.Join(data, "again")),
		os.Symlink("/", filepath.Join(data, "root")),
		os.WriteFile(filepath.Join(data, "sparse"), nil, 0o600),
		os.Truncate(filepath.Join(data, "sparse"), 1<<40),
	); err != nil {
		t.Fatal(err)
	}
	got, err := s.Usage(t.Context(), "v")
	if more := got - empty; err != nil || more < 1<<20 || more > 1<<20+64<<10 {
		t.Errorf("got %d more, %v", more, err)
	}
	// Deeper than any path.
	dir, err := os.OpenRoot(data)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	deep := strings.Repeat("d/", 1000)
	if err := dir.MkdirAll(deep[:1800], 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Usage(t.Context(), "v"); err != nil {
		t.Error(err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Usage(done, "v"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := s.Remove("v", nobody); err != nil {
		t.Error(err)
	}
}

func ExampleStore() {
	dir, _ := os.MkdirTemp("", "volumes")
	defer os.RemoveAll(dir)
	s := Open(dir)
	v, made, err := s.Create(Volume{Name: "db-data"})
	fmt.Println(v.Name, made, err)
	fmt.Println(s.Remove("db-data", func() ([]string, error) { return []string{"workload db"}, nil }))
	// Output:
	// db-data true <nil>
	// volume is in use: db-data belongs to workload db
}

// FuzzRecord: whatever a record holds, the volume is damaged or it is its own.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{`{"name":"v"}`, `{"name":"v","labels":{"a":"b"},"created":"2026-01-02T03:04:05Z"}`, `{"name":"../v"}`, `[`, ""} {
		f.Add([]byte(s))
	}
	s := Open(f.TempDir())
	if _, _, err := s.Create(Volume{Name: "v"}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		if err := os.WriteFile(s.path("v", recordFile), record, 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := s.Get("v"); err == nil && v.Name != "v" || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("got %+v, %v", v, err)
		}
	})
}
