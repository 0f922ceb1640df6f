package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/kerneltest"
	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
)

// TestDebianKernel fetches what a user without a kernel gets.
func TestDebianKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("downloads 70 MB and unpacks 400")
	}
	leakcheck.Check(t, leakcheck.Options{Wait: 5 * time.Second})
	lists := snapshot(t, "/var/lib/apt/lists", "/var/cache/apt", "/var/lib/dpkg")
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Resolve(t.Context(), "", Wanted{Agent: file(t, "agent", []byte("the agent"))}, nil)
	if errors.Is(err, ErrFetch) {
		t.Skip(err) // tests/skips/allowed says when that is excused
	}
	if err != nil {
		t.Fatal(err)
	}
	if k.Name != "debian" || !strings.HasSuffix(k.Release, "-amd64") || !strings.Contains(k.Source, "linux-image-"+k.Release) {
		t.Errorf("%+v", k)
	}
	for _, name := range BaseModules {
		if !slices.Contains(k.Modules, name) && !slices.Contains(k.Builtin, name) {
			t.Errorf("%s is neither in the initramfs nor built in: %v", name, k.Modules)
		}
	}
	// What the crypto layer would ask modprobe for, which no initramfs has.
	if i := slices.Index(k.Modules, "crc32c_generic"); i < 0 || i > slices.Index(k.Modules, "ext4") {
		t.Errorf("crc32c comes after ext4, or not at all: %v", k.Modules)
	}
	if got := snapshot(t, "/var/lib/apt/lists", "/var/cache/apt", "/var/lib/dpkg"); got != lists {
		t.Errorf("the machine's apt has changed:\n%s\nwas\n%s", got, lists)
	}
	if left, _ := filepath.Glob(filepath.Join(dropParent, dropPrefix+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, newer, err := s.Update(t.Context(), nil); err != nil || newer {
		t.Errorf("update right afterwards: newer %v, %v", newer, err)
	}
	leftovers(t, s)
}

// TestFirstOf: what fails is done the other way, unless nobody waits any more, and an
// error tells of both.
func TestFirstOf(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	for _, tt := range []struct {
		name          string
		first, second error
		cancelled     bool
		want          string
		did           string
	}{
		{"works", nil, two, false, "", "1"},
		{"works the other way", one, nil, false, "", "12"},
		{"works in no way", one, two, false, "one; two", "12"},
		{"is interrupted", one, nil, true, "one", "1"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		did := ""
		step := func(name string, err error) func(context.Context) error {
			return func(context.Context) error {
				did += name
				if tt.cancelled {
					cancel()
				}
				return err
			}
		}
		err := firstOf(ctx, step("1", tt.first), step("2", tt.second))
		cancel()
		if got := fmt.Sprint(err); (err == nil) != (tt.want == "") || err != nil && got != tt.want || did != tt.did {
			t.Errorf("%s: did %s, %v", tt.name, did, err)
		}
	}
}

// TestListsFetched: lists are as old as the last look for them, be it that nothing was
// new.
func TestListsFetched(t *testing.T) {
	dir := t.TempDir()
	partial := filepath.Join(dir, "partial")
	if err := os.Mkdir(partial, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := listsFetched(filepath.Join(dir, "none")); !got.IsZero() {
		t.Errorf("no lists: %v", got)
	}
	old, recent := time.Now().Add(-72*time.Hour), time.Now().Add(-time.Hour)
	for _, touched := range []string{dir, partial} {
		if err := errors.Join(os.Chtimes(dir, old, old), os.Chtimes(partial, old, old), os.Chtimes(touched, recent, recent)); err != nil {
			t.Fatal(err)
		}
		if got := listsFetched(dir); !got.Equal(recent) {
			t.Errorf("%s touched: %v, want %v", touched, got, recent)
		}
	}
}

// snapshot lists files with their times and sizes.
func snapshot(t *testing.T, dirs ...string) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				fmt.Fprintln(&b, filepath.Join(dir, e.Name()), info.Size(), info.ModTime())
			}
		}
	}
	return b.String()
}

func TestParsePackage(t *testing.T) {
	sum := strings.Repeat("a", 64)
	good := "Package: linux-image-6.1.0-9-amd64\nVersion: 6.1.9-1\nDescription: x\n Package: no\nDepends: kmod, x (= 1)\nSize: 12\nSHA256: " + sum + "\n\nPackage: other\n"
	got, err := parsePackage([]byte(good))
	want := debPackage{name: "linux-image-6.1.0-9-amd64", version: "6.1.9-1", sha256: sum, size: 12, depends: "kmod, x (= 1)"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "\n" + good, strings.Replace(good, sum, "short", 1), strings.Replace(good, "12", "many", 1), strings.Replace(good, "Version", "Vision", 1)} {
		if p, err := parsePackage([]byte(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, p)
		}
	}
}

func TestVersionedDependency(t *testing.T) {
	for s, want := range map[string]bool{
		"linux-image-6.1.0-56-amd64 (= 6.1.192-2)": true,
		"linux-image-6.1.0-56-amd64":               false,
		"linux-image-generic (= 1)":                false,
		"--option (= 1)":                           false,
	} {
		if got := versioned().MatchString(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestFollow(t *testing.T) {
	var got []float64
	follow(strings.NewReader("dlstatus:1:12.5:Retrieving\npmstatus:1:99:x\ndlstatus:1:NaN:x\ndlstatus:1:1e9:x\ndlstatus:1\n"+
		"dlstatus:1:100:done\n"+strings.Repeat("x", 1<<17)), func(p float64) { got = append(got, p) })
	if !slices.Equal(got, []float64{12.5, 100}) {
		t.Errorf("got %v", got)
	}
}

// TestTakeVerified hands over what apt's unprivileged user could have put in
// the place of the package.
func TestTakeVerified(t *testing.T) {
	content := []byte("the package")
	pkg := debPackage{name: "p", size: int64(len(content)), sha256: fmt.Sprintf("%x", sha256.Sum256(content))}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file(t, "p.deb", content), link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from string
		good bool
	}{
		"good":    {file(t, "p.deb", content), true},
		"other":   {file(t, "p.deb", []byte("the pakcage")), false},
		"longer":  {file(t, "p.deb", append(bytes.Clone(content), 0)), false},
		"shorter": {file(t, "p.deb", content[1:]), false},
		"link":    {link, false},
		"missing": {"/nonexistent/p.deb", false},
	} {
		if err := takeVerified(c.from, filepath.Join(t.TempDir(), "to"), pkg); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHostilePackage has packages whose image or modules are links out.
func TestHostilePackage(t *testing.T) {
	secret := t.TempDir()
	kerneltest.Write(t, filepath.Join(secret, "vmlinuz-6.1"), kerneltest.Image(release))
	for name, build := range map[string]func(dir string) error{
		"image": func(dir string) error {
			return os.Symlink(filepath.Join(secret, "vmlinuz-6.1"), filepath.Join(dir, "boot", "vmlinuz-6.1"))
		},
		"no image": func(string) error { return nil },
		"modules": func(dir string) error {
			kerneltest.Write(t, filepath.Join(dir, "boot", "vmlinuz-6.1"), kerneltest.Image(release))
			if err := os.MkdirAll(filepath.Join(dir, "lib", "modules"), 0o755); err != nil {
				return err
			}
			return os.Symlink(secret, filepath.Join(dir, "lib", "modules", "6.1"))
		},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "boot"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := build(dir); err != nil {
			t.Fatal(err)
		}
		deb := filepath.Join(t.TempDir(), "x.deb")
		kerneltest.Package(t, deb, dir)
		s := store(t, t.TempDir())
		if _, err := s.Add(t.Context(), "x", AddOptions{Image: deb}, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
		if _, err := os.Stat(filepath.Join(secret, "vmlinuz-6.1")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		leftovers(t, s)
	}
	cut := file(t, "cut.deb", []byte("!<arch>\ndebian-binary   cut"))
	if _, err := store(t, t.TempDir()).Add(t.Context(), "x", AddOptions{Image: cut}, nil); err == nil || !strings.Contains(err.Error(), "dpkg-deb") {
		t.Errorf("a package that is cut off: %v", err)
	}
}
