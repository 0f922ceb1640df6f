package copy

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
)

func TestParse(t *testing.T) {
	for arg, want := range map[string]Place{
		"web:/etc/hosts": {"web", "/etc/hosts"}, "web:": {"web", ""}, "web:a:b": {"web", "a:b"}, "web:C:\\x": {"web", "C:\\x"},
		"file": {"", "file"}, "./a:b": {"", "./a:b"}, "/a:b": {"", "/a:b"}, "../a:b": {"", "../a:b"}, "a/b:c": {"", "a/b:c"}, "-": {"", "-"},
	} {
		if got := Parse(arg); got != want {
			t.Errorf("%s: got %+v, want %+v", arg, got, want)
		}
	}
}

// TestPlan is the table of `docker cp`, from its manual page.
func TestPlan(t *testing.T) {
	file, dir, content := Source{"f", false}, Source{"d", true}, Source{".", true}
	for _, tt := range []struct {
		src     Source
		dst     Target
		dir, as string
		err     error
	}{
		// SRC is a file.
		{file, Target{"/new", false, false}, "/", "new", nil},
		{file, Target{"/a/new", false, false}, "/a/", "new", nil},
		{file, Target{"new", false, false}, ".", "new", nil},
		{file, Target{"/a/new/", false, false}, "", "", ErrNoDirectory},
		{file, Target{"/a/new/.", false, false}, "", "", ErrNoDirectory},
		{file, Target{"/a/g", true, false}, "/a/", "g", nil},
		{file, Target{"/a", true, true}, "/a", "", nil},
		{file, Target{"/a/", true, true}, "/a/", "", nil},
		{file, Target{"/", true, true}, "/", "", nil},
		// SRC is a directory.
		{dir, Target{"/new", false, false}, "/", "new", nil},
		{dir, Target{"/new/", false, false}, "/", "new", nil},
		{dir, Target{"/a/g", true, false}, "", "", ErrDirOverFile},
		{dir, Target{"/a", true, true}, "/a", "", nil},
		// SRC ends in "/.".
		{content, Target{"/new", false, false}, "/", "new", nil},
		{content, Target{"/a/g", true, false}, "", "", ErrDirOverFile},
		{content, Target{"/a", true, true}, "/a", "", nil},
		{content, Target{"/a/.", true, true}, "/a/.", "", nil},
		{content, Target{"..", false, false}, "", "", ErrNoDirectory},
		{file, Target{"", false, false}, "", "", ErrNoDirectory},
	} {
		dir, as, err := Plan(tt.src, tt.dst)
		if dir != tt.dir || as != tt.as || !errors.Is(err, tt.err) {
			t.Errorf("%+v to %+v: got %q, %q, %v", tt.src, tt.dst, dir, as, err)
		}
	}
}

// TestJoin: a destination is what links lead to, not what their texts add up to.
func TestJoin(t *testing.T) {
	for _, tt := range []struct{ at, target, want, dir, as string }{
		{"/l", "f", "/f", "/", "f"},
		{"/d/l", "f", "/d/f", "/d/", "f"},
		{"/d/l", "/f", "/f", "/", "f"},
		{"/via/l", "../f", "/via/../f", "/via/../", "f"},
		{"/via/l", "/via/../f", "/via/../f", "/via/../", "f"},
		{"/l", "../f/.", "/../f/.", "/../", "f"},
	} {
		got := Join(tt.at, tt.target)
		dir, as, err := Plan(Source{"d", true}, Target{Path: got})
		if got != tt.want || dir != tt.dir || as != tt.as || err != nil {
			t.Errorf("%s -> %s: got %q, %q in %q, %v", tt.at, tt.target, got, as, dir, err)
		}
	}
}

func TestInside(t *testing.T) {
	for p, want := range map[string]string{
		"a": "/a", "/a": "/a", "//a/": "/a/", "a/../b/.": "/b/.", ".": "/.", "/": "/", "/.": "/.", "..": "/", "../a": "/a",
	} {
		if got := Inside(p); got != want {
			t.Errorf("%s: got %q, want %q", p, got, want)
		}
	}
}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, err := range []error{
		os.MkdirAll("d/sub", 0o755), os.WriteFile("f", nil, 0o600), os.Symlink("d", "ld"), os.Symlink("f", "lf"), os.Symlink("nowhere", "dangling"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]Source{
		"f": {"f", false}, "d": {"d", true}, "d/": {"d", true}, "d/.": {".", true}, ".": {".", true}, "./d": {"d", true}, "d/sub/..": {"d", true},
		"ld": {"ld", false}, "ld/": {"ld", true}, "ld/.": {".", true}, "dangling": {"dangling", false},
	} {
		l, err := OpenLocal(name, false)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if l.Source != want {
			t.Errorf("%s: got %+v, want %+v", name, l.Source, want)
		}
		l.Close()
	}
	for _, name := range []string{"nothing", "f/", "f/."} {
		if _, err := OpenLocal(name, false); err == nil || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]Target{
		"f": {filepath.Join(dir, "f"), true, false}, "lf": {filepath.Join(dir, "f"), true, false}, "d": {filepath.Join(dir, "d"), true, true},
		"ld": {filepath.Join(dir, "ld"), true, true}, "new": {filepath.Join(dir, "new"), false, false}, "new/": {filepath.Join(dir, "new") + "/", false, false},
	} {
		got, err := LocalTarget(name)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"no/such": "no such directory", "dangling": "leads nowhere", "/dev/null": "neither", "f/x": "", "f/": "not a directory",
	} {
		if _, err := LocalTarget(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUnpackHostile unpacks what a guest that is in somebody else's hands may send
// for /data: nothing but the copy may be written, whichever links lead out of it
// and not out of the directory that it lies in.
func TestUnpackHostile(t *testing.T) {
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to} }
	for name, entries := range map[string][]tar.Header{
		"link to the parent":    {dir("data/"), link("data/l", ".."), file("data/l/.bashrc")},
		"link to a sibling":     {dir("data/"), link("data/l", "../home"), file("data/l/.bashrc")},
		"link to a new name":    {dir("data/"), link("data/l", "../home"), dir("data/l/.ssh"), file("data/l/.ssh/authorized_keys")},
		"chain":                 {dir("data/"), dir("data/d"), link("data/d/up", ".."), link("data/l", "d/up/.."), file("data/l/.bashrc")},
		"the copy is a link":    {link("data", "home"), file("data/.bashrc")},
		"hard link from beside": {dir("data/"), link("data/l", "../home"), hard("data/secret", "data/l/secret")},
	} {
		for _, exists := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, exists %v", name, exists), func(t *testing.T) {
				top := t.TempDir()
				dst := Target{Path: filepath.Join(top, "copy")}
				if exists {
					dst = Target{Path: top, Exists: true, IsDir: true}
				}
				if err := errors.Join(os.Mkdir(filepath.Join(top, "home"), 0o755), os.WriteFile(filepath.Join(top, "home/secret"), nil, 0o600)); err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				w := tar.NewWriter(&b)
				for _, h := range entries {
					if err := w.WriteHeader(&h); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				into, as, err := Plan(Source{Base: "data", IsDir: true}, dst)
				if err != nil {
					t.Fatal(err)
				}
				if err := Unpack(t.Context(), into, "data", as, false, nil, &b); !errors.Is(err, filetree.ErrMalformed) {
					t.Errorf("got %v, want %v", err, filetree.ErrMalformed)
				}
				var beside []string
				err = filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
					if err == nil && (d.Type().IsRegular() || d.Name() == ".ssh") {
						beside = append(beside, p)
					}
					return err
				})
				if want := []string{filepath.Join(top, "home/secret")}; err != nil || !slices.Equal(beside, want) {
					t.Errorf("there is %q, %v, want %q and nothing else", beside, err, want)
				}
			})
		}
	}
}

// TestUnpackThroughLinks copies to a destination that the user names by links of
// their own.
func TestUnpackThroughLinks(t *testing.T) {
	top := t.TempDir()
	t.Chdir(top)
	for _, err := range []error{os.MkdirAll("real/sub", 0o755), os.Symlink("real", "l"), os.WriteFile("real/f", nil, 0o600), os.Symlink("real/f", "lf")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for dst, want := range map[string]string{"l": "real/data", "l/sub": "real/sub/data", "l/new": "real/new", "lf": "real/f"} {
		target, err := LocalTarget(dst)
		if err != nil {
			t.Fatal(err)
		}
		into, as, err := Plan(Source{Base: "data"}, target)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		err = w.WriteHeader(&tar.Header{Name: "data", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1})
		if _, werr := w.Write([]byte("x")); err != nil || werr != nil {
			t.Fatal(err, werr)
		}
		if err := errors.Join(w.Close(), Unpack(t.Context(), into, "data", as, false, nil, &b)); err != nil {
			t.Errorf("to %s: %v", dst, err)
		}
		if got, err := os.ReadFile(want); string(got) != "x" {
			t.Errorf("to %s: %s holds %q, %v", dst, want, got, err)
		}
	}
}
