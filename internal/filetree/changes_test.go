package filetree_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func fifoHeader() tar.Header { return tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600} }

// TestChangesInterrupted has somebody go away in the middle of a directory.
func TestChangesInterrupted(t *testing.T) {
	needRoot(t)
	upper := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.WriteFile(filepath.Join(upper, name), nil, 0o644))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked []string
	_, err := filetree.Changes(ctx, upper, []string{t.TempDir()}, filetree.IDs{}, func(p string) bool {
		asked = append(asked, p)
		cancel()
		return false
	})
	if !errors.Is(err, context.Canceled) || len(asked) != 1 {
		t.Errorf("got %v after %v; want %v after the first name", err, asked, context.Canceled)
	}
}

// TestChanges compares layers that an overlay could have.
func TestChanges(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	base, second, upper := filepath.Join(dir, "1"), filepath.Join(dir, "2"), filepath.Join(dir, "upper")
	for layer, names := range map[string]string{
		base:   "etc/ etc/passwd etc/hosts bin/ bin/sh attr/ attr/same/ attr/x gone/ gone/below old/ old/a old/b type whole/ whole/x only/ only/y",
		second: "etc/ etc/group !gone old/ old/c",
		upper:  "etc/ etc/passwd etc/new !etc/hosts bin/ old/ old/a old/d attr/ attr/same/ attr/same/new type/ type/f !whole gone/ gone/again same/ !never only/ dev/ dev/null mnt/ mnt/made",
	} {
		for name := range strings.FieldsSeq(names) {
			bare := strings.TrimPrefix(name, "!")
			p := filepath.Join(layer, bare)
			must(t, os.MkdirAll(filepath.Dir(p), 0o755))
			switch {
			case bare != name:
				must(t, unix.Mknod(p, unix.S_IFCHR, 0))
			case strings.HasSuffix(name, "/"):
				must(t, os.MkdirAll(p, 0o755))
			default:
				must(t, os.WriteFile(p, nil, 0o644))
			}
		}
	}
	must(t, unix.Setxattr(filepath.Join(upper, "old"), "trusted.overlay.opaque", []byte("y"), 0),
		os.Chmod(filepath.Join(upper, "only"), 0o700),
		unix.Setxattr(filepath.Join(upper, "attr"), "user.k", []byte("new"), 0), unix.Setxattr(filepath.Join(base, "attr"), "user.k", []byte("old"), 0),
		unix.Setxattr(filepath.Join(upper, "attr/same"), "trusted.overlay.origin", []byte("y"), 0))
	got, err := filetree.Changes(t.Context(), upper, []string{base, second}, filetree.IDs{}, func(p string) bool {
		return p == "/dev" || p == "/dev/null" || p == "/mnt"
	})
	must(t, err)
	var b strings.Builder
	for _, c := range got {
		b.WriteString(c.Kind + " " + c.Path + "\n")
	}
	const want = `C /attr
C /attr/same
A /attr/same/new
C /etc
D /etc/hosts
A /etc/new
C /etc/passwd
A /gone
A /gone/again
A /mnt/made
C /old
C /old/a
D /old/b
D /old/c
A /old/d
C /only
A /same
C /type
A /type/f
D /whole
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	var wire bytes.Buffer
	must(t, workload.WriteChanges(&wire, got))
	back, err := workload.ReadChanges(&wire)
	if d := cmp.Diff(got, back); err != nil || d != "" {
		t.Errorf("%v, (-sent +received)\n%s", err, d)
	}
	for _, bad := range []string{"A", "A/x", "\x00", "X/x\x00", "Ax\x00", "A\x00", "A/x\x00C", strings.Repeat("x", 70000)} {
		if got, err := workload.ReadChanges(strings.NewReader(bad)); err == nil {
			t.Errorf("%.10q: no error but %v", bad, got)
		}
	}
}

// TestChangesBelowOpaque has the kernel make what it makes of a directory that is
// removed and made anew: it marks the topmost as opaque, and none below.
func TestChangesBelowOpaque(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(at("lower/x/sub/deep"), 0o755), os.WriteFile(at("lower/x/f"), nil, 0o644), os.WriteFile(at("lower/x/sub/g"), nil, 0o644),
		os.WriteFile(at("lower/x/sub/deep/h"), nil, 0o644), os.Mkdir(at("upper"), 0o755), os.Mkdir(at("work"), 0o755), os.Mkdir(at("merged"), 0o755))
	if err := unix.Mount("overlay", at("merged"), "overlay", 0, "lowerdir="+at("lower")+",upperdir="+at("upper")+",workdir="+at("work")); err != nil {
		t.Skipf("no overlay here: %v", err)
	}
	err := errors.Join(os.RemoveAll(at("merged/x")), os.MkdirAll(at("merged/x/sub/deep"), 0o755), os.WriteFile(at("merged/x/sub/new"), nil, 0o644))
	must(t, errors.Join(err, unix.Unmount(at("merged"), 0)))
	got, err := filetree.Changes(t.Context(), at("upper"), []string{at("lower")}, filetree.IDs{}, nil)
	must(t, err)
	want := []workload.Change{
		{Kind: "C", Path: "/x"}, {Kind: "D", Path: "/x/f"}, {Kind: "C", Path: "/x/sub"}, {Kind: "C", Path: "/x/sub/deep"},
		{Kind: "D", Path: "/x/sub/deep/h"}, {Kind: "D", Path: "/x/sub/g"}, {Kind: "A", Path: "/x/sub/new"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestChangesOfAttributes has directories of which only extended attributes changed,
// with owners in them that the workload sees as others than the host.
func TestChangesOfAttributes(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	ids := filetree.IDs{Base: 100000, Count: 65536}
	list := func(user uint32) []byte { // user::rwx user:USER:rwx group::r-x mask::rwx other::r-x
		b := binary.LittleEndian.AppendUint32(nil, 2)
		for _, e := range [][3]uint32{{1, 7, 1<<32 - 1}, {2, 7, user}, {4, 5, 1<<32 - 1}, {16, 7, 1<<32 - 1}, {32, 5, 1<<32 - 1}} {
			b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
			b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
			b = binary.LittleEndian.AppendUint32(b, e[2])
		}
		return b
	}
	const acl = "system.posix_acl_access"
	for name, tt := range map[string]struct{ lower, upper map[string][]byte }{
		"same":        {map[string][]byte{"user.k": []byte("v"), acl: list(5)}, map[string][]byte{"user.k": []byte("v"), acl: list(100005)}},
		"added":       {nil, map[string][]byte{"user.k": []byte("v")}},
		"removed":     {map[string][]byte{"user.k": []byte("v")}, nil},
		"changed":     {map[string][]byte{"user.k": []byte("v")}, map[string][]byte{"user.k": []byte("w")}},
		"list":        {map[string][]byte{acl: list(5)}, map[string][]byte{acl: list(100006)}},
		"overlayfs's": {nil, map[string][]byte{"trusted.overlay.origin": []byte("x")}},
	} {
		for layer, attrs := range map[string]map[string][]byte{"lower": tt.lower, "upper": tt.upper} {
			p := filepath.Join(dir, layer, name)
			must(t, os.MkdirAll(p, 0o775), os.Chmod(p, 0o775))
			for k, v := range attrs {
				if err := unix.Setxattr(p, k, v, 0); err != nil {
					t.Fatalf("%s: %v", k, err)
				}
			}
		}
		must(t, os.Chown(filepath.Join(dir, "upper", name), 100000, 100000))
	}
	must(t, os.Chown(filepath.Join(dir, "upper"), 100000, 100000))
	got, err := filetree.Changes(t.Context(), filepath.Join(dir, "upper"), []string{filepath.Join(dir, "lower")}, ids, nil)
	must(t, err)
	want := []workload.Change{{Kind: "C", Path: "/added"}, {Kind: "C", Path: "/changed"}, {Kind: "C", Path: "/list"}, {Kind: "C", Path: "/removed"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestChangesOfRoot changes the root directory itself, and not what is in it. Whoever
// makes upper gives it the owner and the mode of the image's root, but for setuid, and
// none of its extended attributes.
func TestChangesOfRoot(t *testing.T) {
	needRoot(t)
	ids := filetree.IDs{Base: 100000, Count: 65536}
	for name, tt := range map[string]struct {
		change  func(upper string) error
		changed bool
	}{
		"nothing":            {func(string) error { return nil }, false},
		"mode":               {func(upper string) error { return os.Chmod(upper, 0o700) }, true},
		"owner":              {func(upper string) error { return os.Chown(upper, 100007, 100003) }, true},
		"group":              {func(upper string) error { return os.Chown(upper, 100002, 100000) }, true},
		"attribute":          {func(upper string) error { return unix.Setxattr(upper, "user.new", nil, 0) }, true},
		"overlayfs's":        {func(upper string) error { return unix.Setxattr(upper, "trusted.overlay.impure", []byte("y"), 0) }, false},
		"something below it": {func(upper string) error { return os.WriteFile(filepath.Join(upper, "f"), nil, 0o644) }, false},
	} {
		dir := t.TempDir()
		at := func(name string) string { return filepath.Join(dir, name) }
		for name, base := range map[string]int{"low": 5, "high": 0, "upper": 100000} {
			must(t, os.Mkdir(at(name), 0o700), os.Chown(at(name), base+2, base+3), os.Chmod(at(name), 0o775|os.ModeSticky))
		}
		must(t, os.Chmod(at("high"), 0o775|os.ModeSticky|os.ModeSetuid), unix.Setxattr(at("high"), "user.k", []byte("v"), 0), tt.change(at("upper")))
		got, err := filetree.Changes(t.Context(), at("upper"), []string{at("low"), at("high")}, ids, nil)
		must(t, err)
		if changed := len(got) > 0 && got[0] == (workload.Change{Kind: "C", Path: "/"}); changed != tt.changed {
			t.Errorf("%s: got %v, want the root to be among them: %v", name, got, tt.changed)
		}
	}
}
