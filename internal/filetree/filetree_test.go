package filetree_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// open returns a descriptor of a directory for the length of a test.
func open(t testing.TB, dir string) int {
	t.Helper()
	fd, err := at.LookPath(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.Close(fd) })
	return fd
}

// read returns the archive of a path.
func read(t testing.TB, root, name string, follow bool, o filetree.ReadOptions) (*bytes.Buffer, error) {
	t.Helper()
	fd, err := filetree.Open(open(t, root), name, follow)
	if err != nil {
		return nil, err
	}
	defer at.Close(fd)
	var b bytes.Buffer
	return &b, filetree.Read(t.Context(), fd, filetree.Base(name), o, &b)
}

func write(t testing.TB, dir string, o filetree.WriteOptions, r io.Reader) error {
	t.Helper()
	return filetree.Write(t.Context(), open(t, dir), o, r)
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// names lists an archive, each entry with its type.
func names(t testing.TB, b *bytes.Buffer) []string {
	t.Helper()
	var out []string
	for r := tar.NewReader(bytes.NewReader(b.Bytes())); ; {
		h, err := r.Next()
		if err == io.EOF {
			slices.Sort(out)
			return out
		}
		must(t, err)
		s := string(rune(h.Typeflag)) + " " + h.Name
		if h.Linkname != "" {
			s += " > " + h.Linkname
		}
		out = append(out, s)
	}
}

// describe lists a tree with everything that a copy must keep.
func describe(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	first := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if rel == "." {
			return nil
		}
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %v %d:%d", rel, fi.Mode(), st.Uid, st.Gid)
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", b[:min(len(b), 40)])
			if st.Nlink > 1 {
				if first[st.Ino] == "" {
					first[st.Ino] = rel
				}
				line += " = " + first[st.Ino]
			}
		case fi.Mode()&os.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			line += " > " + to
		}
		line += " " + fi.ModTime().UTC().Format("15:04:05")
		out = append(out, line)
		return nil
	}))
	return out
}

// sample makes a tree with one of each.
func sample(t testing.TB, dir string) {
	t.Helper()
	d := func(name string) string { return filepath.Join(dir, name) }
	must(t,
		os.MkdirAll(d("a/b/c"), 0o755),
		os.WriteFile(d("a/text"), []byte("text"), 0o640),
		os.WriteFile(d("a/b/setuid"), []byte("x"), 0o755),
		os.Chmod(d("a/b/setuid"), 0o755|os.ModeSetuid),
		os.Link(d("a/text"), d("a/b/again")),
		os.Symlink("/etc/passwd", d("a/absolute")),
		os.Symlink("../text", d("a/b/up")),
		os.Symlink("nowhere", d("a/dangling")),
		os.Symlink("b", d("a/dir")),
		syscall.Mkfifo(d("a/fifo"), 0o600),
		os.WriteFile(d("a/\xff\xfe name\n"), []byte("not UTF-8"), 0o600),
		os.WriteFile(d("a/"+strings.Repeat("long", 60)), []byte("long"), 0o600),
		syscall.Setxattr(d("a/text"), "user.color", []byte("blue\x00"), 0),
		os.Chmod(d("a/b/c"), 0o2750),
		os.Chmod(d("a/b/c"), 0o750|os.ModeSetgid|os.ModeSticky),
	)
	for _, n := range []string{"a/text", "a/b/setuid", "a/b/c", "a/b", "a"} {
		ts := []syscall.Timespec{{Sec: 1e9 + 60}, {Sec: 1e9 + 60}}
		must(t, syscall.UtimesNano(d(n), ts))
	}
}

func TestRoundTrip(t *testing.T) {
	needRoot(t)
	from, to := t.TempDir(), t.TempDir()
	sample(t, from)
	b, err := read(t, from, "/a", false, filetree.ReadOptions{})
	must(t, err, write(t, to, filetree.WriteOptions{Owners: true}, b))
	if d := cmp.Diff(describe(t, from), describe(t, to)); d != "" {
		t.Errorf("(-from +to)\n%s", d)
	}
	value := make([]byte, 16)
	n, err := syscall.Getxattr(filepath.Join(to, "a/text"), "user.color", value)
	if err != nil || string(value[:n]) != "blue\x00" {
		t.Errorf("user.color: %q, %v", value[:max(n, 0)], err)
	}
}

// TestAttributeNames has an attribute whose name would end a PAX record's.
func TestAttributeNames(t *testing.T) {
	needRoot(t)
	from, to := t.TempDir(), t.TempDir()
	file := filepath.Join(from, "f")
	must(t, os.WriteFile(file, []byte("text"), 0o644), syscall.Setxattr(file, "user.a=b", []byte("lost"), 0), syscall.Setxattr(file, "user.c", []byte("kept"), 0))
	var skipped []string
	b, err := read(t, from, "/f", false, filetree.ReadOptions{Skipped: func(name, why string) { skipped = append(skipped, name+": "+why) }})
	must(t, err, write(t, to, filetree.WriteOptions{}, b))
	if want := []string{`the attribute "user.a=b" of f: an archive cannot hold a "=" in its name`}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %q, want %q", skipped, want)
	}
	got, err := at.Llistxattr(open(t, to), "f")
	if err != nil || !slices.Equal(got, []string{"user.c"}) {
		t.Errorf("the copy has the attributes %q, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755), os.WriteFile(filepath.Join(dir, "a/f"), nil, 0o644),
		os.Symlink("a/b", filepath.Join(dir, "l")), os.Symlink("/a/f", filepath.Join(dir, "file")), os.WriteFile(filepath.Join(dir, "a/b/x"), nil, 0o644))
	for _, tt := range []struct {
		name   string
		follow bool
		want   []string
	}{
		{"a", false, []string{"0 a/b/x", "0 a/f", "5 a/", "5 a/b/"}},
		{"/a/b", false, []string{"0 b/x", "5 b/"}},
		{"/a/b/", false, []string{"0 b/x", "5 b/"}},
		{"/a/b/.", false, []string{"0 x", "5 ./"}},
		{"/../a/./b/../b", false, []string{"0 b/x", "5 b/"}},
		{"l", false, []string{"2 l > a/b"}},
		{"l", true, []string{"0 l/x", "5 l/"}},
		{"l/", false, []string{"0 l/x", "5 l/"}},
		{"l/.", false, []string{"0 x", "5 ./"}},
		{"file", false, []string{"2 file > /a/f"}},
		{"file", true, []string{"0 file"}},
	} {
		b, err := read(t, dir, tt.name, tt.follow, filetree.ReadOptions{})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if d := cmp.Diff(tt.want, names(t, b)); d != "" {
			t.Errorf("%s, follow %v (-want +got)\n%s", tt.name, tt.follow, d)
		}
	}
	for _, name := range []string{"nothing", "a/f/", "a/f/.", "a/f/x", "", strings.Repeat("x/", 3000)} {
		if b, err := read(t, dir, name, false, filetree.ReadOptions{}); err == nil && name != "" {
			t.Errorf("%.20q: no error, but %q", name, names(t, b))
		}
	}
}

// entry is one of an archive.
type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, content}
}
func directory(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}
func symlink(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, ""}
}
func link(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}, ""}
}
func device(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o666}, ""}
}

func archive(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.content))
		must(t, w.WriteHeader(&e.Header))
		_, err := w.Write([]byte(e.content))
		must(t, err)
	}
	must(t, w.Close())
	return &b
}

func TestHostileArchives(t *testing.T) {
	needRoot(t)
	host := filetree.WriteOptions{Host: true, NoOverwriteDir: true, Within: "a", As: "b"}
	for name, tt := range map[string]struct {
		in   []entry
		o    filetree.WriteOptions
		want string            // in the error; "" for none
		made map[string]string // files afterwards, by content
	}{
		"up":              {in: []entry{file("../x", "x")}, want: "leaves its directory"},
		"up inside":       {in: []entry{file("a/../../x", "x")}, want: "leaves its directory"},
		"absolute":        {in: []entry{file("/abs", "x")}, made: map[string]string{"abs": "x"}},
		"through a link":  {in: []entry{symlink("l", "../out"), file("l/x", "x")}, want: "leads out"},
		"absolute link":   {in: []entry{symlink("l", "/"), file("l/x", "x")}, want: "leads out"},
		"chain":           {in: []entry{symlink("a", "b"), symlink("b", ".."), directory("a/c"), file("a/c/x", "x")}, want: "leads out"},
		"link inside":     {in: []entry{directory("d"), symlink("l", "d"), file("l/x", "x")}, made: map[string]string{"d/x": "x"}},
		"file over link":  {in: []entry{symlink("l", "../out/kept"), file("l", "x")}, made: map[string]string{"l": "x"}},
		"link out":        {in: []entry{link("l", "../out/kept")}, want: "leaves its directory"},
		"link through":    {in: []entry{symlink("l", "../out"), link("x", "l/kept")}, want: "leads out"},
		"link to itself":  {in: []entry{file("x", "x"), link("x", "x")}, made: map[string]string{"x": "x"}},
		"link to nothing": {in: []entry{link("x", "nothing")}, want: "no such file"},
		"link to the top": {in: []entry{link("x", ".")}, want: "hard link to a directory"},
		"twice":           {in: []entry{file("x", "1"), file("x", "2")}, made: map[string]string{"x": "2"}},
		"device":          {in: []entry{device("sda")}, want: "a device"},
		"file over dir":   {in: []entry{file("d/x", "x"), file("d", "x")}, made: map[string]string{"d": "x"}},
		"file over dir, no": {in: []entry{file("d/x", "x"), file("d", "x")}, o: filetree.WriteOptions{NoOverwriteDir: true},
			want: "cannot overwrite a directory", made: map[string]string{"d/x": "x"}},
		"dir over file, no": {in: []entry{file("d", "x"), directory("d")}, o: filetree.WriteOptions{NoOverwriteDir: true},
			want: "with a directory", made: map[string]string{"d": "x"}},
		"dir over file":  {in: []entry{file("d", "x"), directory("d"), file("d/y", "y")}, made: map[string]string{"d/y": "y"}},
		"file as parent": {in: []entry{file("d", "x"), file("d/y", "y")}, want: "not a directory", made: map[string]string{"d": "x"}},
		"not asked for":  {in: []entry{file("a/x", "x"), file(".profile", "x")}, o: filetree.WriteOptions{Within: "a"}, want: "not asked for", made: map[string]string{"a/x": "x"}},
		"renamed": {in: []entry{directory("a"), file("a/x", "x"), link("a/y", "a/x")}, o: filetree.WriteOptions{Within: "a", As: "b"},
			made: map[string]string{"b/x": "x", "b/y": "x"}},
		"content renamed": {in: []entry{directory("."), file("./x", "x")}, o: filetree.WriteOptions{Within: ".", As: "b"}, made: map[string]string{"b/x": "x"}},
		"long name":       {in: []entry{file(strings.Repeat("x", 300), "x")}, want: "longer than 255"},
		"deep":            {in: []entry{file(strings.Repeat("x/", 600)+"x", "x")}, want: "deeper than"},
		"owner out of range": {in: []entry{{tar.Header{Name: "x", Typeflag: tar.TypeReg, Uid: 70000}, ""}},
			o: filetree.WriteOptions{Owners: true, IDs: filetree.IDs{Base: 200000, Count: 65536}}, want: "outside of the workload's"},
		"negative owner": {in: []entry{{tar.Header{Name: "x", Typeflag: tar.TypeReg, Uid: -1, Format: tar.FormatGNU}, ""}},
			o: filetree.WriteOptions{Owners: true}, want: "no such owner"},
		"overlay's attribute": {in: []entry{{tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755,
			PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}}, ""}, file("d/x", "x")}, made: map[string]string{"d/x": "x"}},
		"on a host, beside what was asked for": {in: []entry{directory("a"), symlink("a/l", ".."), file("a/l/x", "x")}, o: host,
			want: "malformed or hostile"},
		"on a host, made a link later": {in: []entry{symlink("a", "."), file("a/x", "x")}, o: host, want: "malformed or hostile"},
		"on a host, link inside":       {in: []entry{directory("a/d"), symlink("a/l", "d"), file("a/l/x", "x")}, o: host, want: "malformed or hostile"},
		"on a host, hard link through": {in: []entry{file("a/f", "f"), symlink("a/l", ".."), link("a/x", "a/l/a/f")}, o: host,
			want: "malformed or hostile", made: map[string]string{"b/f": "f"}},
		"on a host, hard link": {in: []entry{directory("a/d"), file("a/d/f", "f"), symlink("a/l", "d"), link("a/x", "a/d/f"), link("a/y", "a/l")}, o: host,
			made: map[string]string{"b/d/f": "f", "b/x": "f"}},
		"socket and unknown": {in: []entry{{tar.Header{Name: "x", Typeflag: 'Z'}, ""}}, want: "unknown type"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dest, out := filepath.Join(top, "dest"), filepath.Join(top, "out")
			must(t, os.Mkdir(dest, 0o755), os.Mkdir(out, 0o755), os.WriteFile(filepath.Join(out, "kept"), []byte("kept"), 0o600))
			err := write(t, dest, tt.o, archive(t, tt.in...))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			made := map[string]string{}
			must(t, filepath.WalkDir(dest, func(p string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					b, err := os.ReadFile(p)
					rel, _ := filepath.Rel(dest, p)
					made[rel] = string(b)
					return err
				}
				return err
			}))
			want := tt.made
			if want == nil {
				want = map[string]string{}
			}
			if len(made) != len(want) || !maps.Equal(made, want) {
				t.Errorf("made %q, want %q", made, want)
			}
			if got := describe(t, out); len(got) != 1 || !strings.HasPrefix(got[0], `kept -rw------- 0:0 "kept"`) {
				t.Errorf("outside: %q", got)
			}
		})
	}
}

func TestCutOff(t *testing.T) {
	whole := archive(t, file("a", strings.Repeat("x", 2000)), file("b", "y")).Bytes()
	for _, n := range []int{1, 300, 600, 1500, 2600} {
		if err := write(t, t.TempDir(), filetree.WriteOptions{}, bytes.NewReader(whole[:n])); !errors.Is(err, filetree.ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if err := write(t, t.TempDir(), filetree.WriteOptions{}, strings.NewReader(strings.Repeat("no archive ", 200))); !errors.Is(err, filetree.ErrMalformed) {
		t.Error(err)
	}
}

func TestHostDropsPrivileges(t *testing.T) {
	needRoot(t)
	hdr := tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o6755, Uid: 5, Gid: 6, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02" + strings.Repeat("\xff", 16)}}
	for _, tt := range []struct {
		o    filetree.WriteOptions
		mode os.FileMode
		uid  uint32
		caps bool
	}{
		{filetree.WriteOptions{Host: true}, 0o755, 0, false},
		{filetree.WriteOptions{Host: true, Owners: true}, 0o755 | os.ModeSetuid | os.ModeSetgid, 5, false},
		{filetree.WriteOptions{}, 0o755 | os.ModeSetuid | os.ModeSetgid, 0, true},
		{filetree.WriteOptions{IDs: filetree.IDs{Base: 300000, Count: 65536}, Owners: true}, 0o755 | os.ModeSetuid | os.ModeSetgid, 300005, true},
	} {
		dir := t.TempDir()
		must(t, write(t, dir, tt.o, archive(t, entry{hdr, "x"})))
		name := filepath.Join(dir, "x")
		fi, err := os.Stat(name)
		must(t, err)
		if uid := fi.Sys().(*syscall.Stat_t).Uid; fi.Mode() != tt.mode || uid != tt.uid {
			t.Errorf("%+v: %v of %d, want %v of %d", tt.o, fi.Mode(), uid, tt.mode, tt.uid)
		}
		v := make([]byte, 32)
		n, err := syscall.Getxattr(name, "security.capability", v)
		if (err == nil) != tt.caps {
			t.Errorf("%+v: capabilities %x, %v", tt.o, v[:max(n, 0)], err)
		}
		if tt.o.IDs.Count > 0 && n != 24 {
			t.Errorf("%d bytes of capabilities: want those of a user namespace", n)
		}
		b, err := read(t, dir, "x", false, filetree.ReadOptions{IDs: tt.o.IDs})
		must(t, err)
		h, err := tar.NewReader(b).Next()
		must(t, err)
		if got := h.PAXRecords["SCHILY.xattr.security.capability"]; tt.caps && got != hdr.PAXRecords["SCHILY.xattr.security.capability"] {
			t.Errorf("%+v: read back %x", tt.o, got)
		}
	}
}

func TestSparse(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	const size = 64 << 20
	f, err := os.Create(filepath.Join(from, "sparse"))
	must(t, err)
	_, err = f.WriteAt([]byte("middle"), size/2)
	must(t, err, f.Truncate(size), f.Close())
	b, err := read(t, from, "sparse", false, filetree.ReadOptions{})
	must(t, err, write(t, to, filetree.WriteOptions{}, b))
	fi, err := os.Stat(filepath.Join(to, "sparse"))
	must(t, err)
	if got := fi.Sys().(*syscall.Stat_t).Blocks * 512; fi.Size() != size || got > 1<<20 {
		t.Errorf("size %d, %d bytes on disk", fi.Size(), got)
	}
	got, err := os.ReadFile(filepath.Join(to, "sparse"))
	must(t, err)
	if string(got[size/2:size/2+6]) != "middle" || bytes.Count(got, []byte{0}) != size-6 {
		t.Error("wrong content")
	}
}

// TestCancel ends both directions in the middle.
func TestCancel(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "big"), make([]byte, 8<<20), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	fd, err := filetree.Open(open(t, dir), "big", false)
	must(t, err)
	defer at.Close(fd)
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		err := filetree.Read(ctx, fd, "big", filetree.ReadOptions{}, w)
		w.CloseWithError(err)
		done <- err
	}()
	if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	cancel()
	go io.Copy(io.Discard, r)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := filetree.Write(ctx, open(t, t.TempDir()), filetree.WriteOptions{}, archive(t, file("x", "x"))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestKernelFiles(t *testing.T) {
	if _, err := read(t, "/", "/proc/self/status", false, filetree.ReadOptions{}); !errors.Is(err, filetree.ErrKernelFiles) {
		t.Error(err)
	}
	// A magic link leads to wherever a descriptor does.
	if _, err := read(t, "/", "/proc/self/root/etc/passwd", false, filetree.ReadOptions{}); err == nil {
		t.Error("a magic link was followed")
	}
}
