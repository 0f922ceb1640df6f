package registry

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRegistry(t *testing.T) {
	root := t.TempDir()
	r := Open(root)
	if all, err := r.List(); err != nil || len(all) != 0 {
		t.Errorf("before anything: got %v, %v", all, err)
	}
	for _, name := range []string{"two", "one"} {
		if err := r.Add(Entry{Name: name, Path: "/usr/bin/" + name, Version: "v"}, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Add(Entry{Name: "one", Path: "/other"}, false); !errors.Is(err, ErrExists) {
		t.Errorf("again: got %v", err)
	}
	if err := r.Add(Entry{Name: "one", Path: "/other"}, true); err != nil {
		t.Error(err)
	}
	if e, err := r.Get("one"); err != nil || e.Path != "/other" {
		t.Errorf("got %+v, %v", e, err)
	}
	if all, err := r.List(); err != nil || len(all) != 2 || all[0].Name != "one" {
		t.Errorf("got %+v, %v", all, err)
	}
	if err := r.Remove("one"); err != nil {
		t.Error(err)
	}
	if err := r.Remove("one"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: got %v", err)
	}
	left, err := os.ReadDir(filepath.Join(root, "runtimes"))
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestHostileNamesAndRecords(t *testing.T) {
	root := t.TempDir()
	r := Open(root)
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden"} {
		if _, err := r.Get(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("get %q: %v", name, err)
		}
		if err := r.Add(Entry{Name: name, Path: "/x"}, true); err == nil {
			t.Errorf("add %q: no error", name)
		}
	}
	dir := filepath.Join(root, "runtimes")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut": `{"name":"cut","path":"/u`, "other": `{"name":"elsewhere","path":"/x"}`, "relative": `{"name":"relative","path":"x"}`, "list": "[]",
	} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if e, err := r.Get(name); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %+v, %v", name, e, err)
		}
	}
	if err := r.Add(Entry{Name: "good", Path: "/good"}, false); err != nil {
		t.Fatal(err)
	}
	if all, err := r.List(); len(all) != 1 || !errors.Is(err, ErrDamaged) {
		t.Errorf("list: got %+v, %v", all, err)
	}
	if err := r.Remove("cut"); err != nil {
		t.Errorf("remove a damaged one: %v", err)
	}
}
