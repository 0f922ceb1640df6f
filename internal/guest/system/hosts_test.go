package system

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestHosts starts a system a second time with another address.
func TestHosts(t *testing.T) {
	const first, second = "10.1.2.3\tme\n", "10.1.2.44\tme\n"
	for name, tt := range map[string]struct {
		edit func(string) string
		want func(string) string
	}{
		"untouched":   {func(s string) string { return s }, func(string) string { return string(markHosts([]byte(second))) }},
		"added to":    {func(s string) string { return "# mine\n" + s + "10.9.9.9\tdb\n" }, func(string) string { return "# mine\n" + string(markHosts([]byte(second))) + "10.9.9.9\tdb\n" }},
		"rewritten":   {func(string) string { return "127.0.0.1 localhost\n" }, func(s string) string { return s }},
		"half a mark": {func(string) string { return "127.0.0.1 localhost " + hostsBegin + hostsEnd }, func(s string) string { return s }},
		"no end":      {func(string) string { return hostsBegin + "10.1.2.3\tme\n" }, func(s string) string { return s }},
		"too large":   {func(s string) string { return s + string(make([]byte, maxHosts)) }, func(s string) string { return s }},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTree(t)
			source := filepath.Join(t.TempDir(), "hosts")
			start := func(text string) {
				t.Helper()
				if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := x.write(map[string]string{hostsFile: source}, x.dir, workload.Spec{}, nil); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(x.dir, hostsFile)
			read := func() string {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			start(first)
			if got := read(); got != string(markHosts([]byte(first))) {
				t.Errorf("first start: got %q", got)
			}
			edited := tt.edit(read())
			if err := os.WriteFile(file, []byte(edited), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, 0o640); err != nil {
				t.Fatal(err)
			}
			start(second)
			if got, want := read(), tt.want(edited); got != want {
				t.Errorf("second start: got %.300q\nwant %.300q", got, want)
			}
			if fi, err := os.Stat(file); err != nil || fi.Mode() != 0o640 {
				t.Errorf("its mode became %v, %v", fi.Mode(), err)
			}
			if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 2 { // and machine-id
				t.Errorf("beside it: %v, %v", left, err)
			}
		})
	}
}

// TestHostsIsNoFile has a system put something else in the file's place.
func TestHostsIsNoFile(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, markHosts([]byte("10.1.2.3\tme\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(outside)
	if err != nil {
		t.Fatal(err)
	}
	x := newTree(t)
	if err := os.Mkdir(filepath.Join(x.dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(x.dir, hostsFile)
	for name, place := range map[string]func() error{
		"a link":      func() error { return os.Symlink(outside, file) },
		"a directory": func() error { return os.Mkdir(file, 0o755) },
		"a FIFO":      func() error { return syscall.Mkfifo(file, 0o600) },
		"nothing":     func() error { return nil },
	} {
		if err := place(); err != nil {
			t.Fatal(err)
		}
		if err := x.updateHosts([]byte("10.1.2.44\tme\n")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(outside); err != nil || string(after) != string(before) {
			t.Errorf("%s: outside there is %q, %v", name, after, err)
		}
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
	}
}
