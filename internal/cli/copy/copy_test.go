package copy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
