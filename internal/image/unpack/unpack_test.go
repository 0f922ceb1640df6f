package unpack_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"golang.org/x/sys/unix"
)

// jail makes a root inside a directory with a canary beside it.
func jail(tb testing.TB) (root *os.File, outside string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: devices, owners and trusted attributes")
	}
	outside = tb.TempDir()
	path := filepath.Join(outside, "root")
	if err := os.Mkdir(path, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "canary"), []byte("alive"), 0o600); err != nil {
		tb.Fatal(err)
	}
	root, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { root.Close() })
	return root, outside
}

// checkJail fails the test if anything outside the root has changed.
func checkJail(tb testing.TB, outside string) {
	tb.Helper()
	names, err := os.ReadDir(outside)
	if err != nil || len(names) != 2 {
		tb.Errorf("outside of the root: %v, %v", names, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(outside, "canary"), &st); err != nil || st.Mode != unix.S_IFREG|0o600 || st.Nlink != 1 {
		tb.Errorf("canary: mode %o, %d links, %v", st.Mode, st.Nlink, err)
	}
	if p, err := os.ReadFile(filepath.Join(outside, "canary")); string(p) != "alive" {
		tb.Errorf("canary holds %q, %v", p, err)
	}
}

func TestHostileLayers(t *testing.T) {
	raw := func(h tar.Header) imagetest.Entry { return imagetest.Entry{Header: h} }
	long := strings.Repeat("d/", 300)
	wide := strings.Repeat(strings.Repeat("n", 200)+"/", 12)
	for name, tt := range map[string]struct {
		entries []imagetest.Entry
		limits  unpack.Limits
		want    error
		text    string
	}{
		"dotdot":                  {entries: []imagetest.Entry{imagetest.File("../canary", "dead")}, want: unpack.ErrHostile, text: "leaves the layer"},
		"dotdot inside":           {entries: []imagetest.Entry{imagetest.File("a/../../canary", "dead")}, want: unpack.ErrHostile},
		"dotdot directory":        {entries: []imagetest.Entry{imagetest.Dir("..", 0o777)}, want: unpack.ErrHostile},
		"hard link out":           {entries: []imagetest.Entry{imagetest.Link("l", "../canary")}, want: unpack.ErrHostile},
		"hard link absolute":      {entries: []imagetest.Entry{imagetest.Link("l", "/etc/passwd")}, want: unpack.ErrHostile, text: "in the layer"},
		"hard link via link":      {entries: []imagetest.Entry{imagetest.Symlink("s", ".."), imagetest.Link("l", "s/canary")}, want: unpack.ErrHostile},
		"hard link to directory":  {entries: []imagetest.Entry{imagetest.Dir("d", 0o755), imagetest.Link("l", "d")}, want: unpack.ErrHostile},
		"hard link to root":       {entries: []imagetest.Entry{imagetest.Link("l", "/")}, want: unpack.ErrHostile},
		"hard link to whiteout":   {entries: []imagetest.Entry{imagetest.File(".wh.x", ""), imagetest.Link("l", "x")}, want: unpack.ErrHostile},
		"hard link eats itself":   {entries: []imagetest.Entry{imagetest.File("d/f", "x"), imagetest.Link("d", "d/f")}, want: unpack.ErrHostile},
		"hard link dangling":      {entries: []imagetest.Entry{imagetest.Link("l", "nothing")}, want: unpack.ErrHostile},
		"link loop":               {entries: []imagetest.Entry{imagetest.Symlink("a", "b"), imagetest.Symlink("b", "a"), imagetest.File("a/f", "x")}, want: unpack.ErrHostile, text: "too many symbolic links"},
		"link to self":            {entries: []imagetest.Entry{imagetest.Symlink("a", "a/a/a"), imagetest.File("a/f", "x")}, want: unpack.ErrHostile},
		"parent is a file":        {entries: []imagetest.Entry{imagetest.File("a", "x"), imagetest.File("a/b", "x")}, want: unpack.ErrHostile, text: "no directory"},
		"parent is a device":      {entries: []imagetest.Entry{imagetest.Device("a", 1, 3), imagetest.File("a/b", "x")}, want: unpack.ErrHostile},
		"root is a file":          {entries: []imagetest.Entry{imagetest.File(".", "")}, want: unpack.ErrHostile},
		"root is a link":          {entries: []imagetest.Entry{imagetest.Symlink("/", "/etc")}, want: unpack.ErrHostile},
		"whiteout of root":        {entries: []imagetest.Entry{imagetest.File(".wh.", "")}, want: unpack.ErrHostile},
		"whiteout of dot":         {entries: []imagetest.Entry{imagetest.File("a/.wh..", "")}, want: unpack.ErrHostile},
		"whiteout of dotdot":      {entries: []imagetest.Entry{imagetest.File("a/.wh...", "")}, want: unpack.ErrHostile},
		"whiteout is a directory": {entries: []imagetest.Entry{imagetest.Dir(".wh.x", 0o755)}, want: unpack.ErrHostile},
		"too deep":                {entries: []imagetest.Entry{imagetest.File(long+"f", "x")}, want: unpack.ErrLimit},
		"too deep by links":       {entries: []imagetest.Entry{imagetest.Dir(strings.Repeat("d/", 100), 0o755), imagetest.Symlink("l", strings.Repeat("d/", 100)), imagetest.File("l/"+strings.Repeat("e/", 100)+"f", "x")}, want: unpack.ErrLimit},
		"name too long":           {entries: []imagetest.Entry{imagetest.File(strings.Repeat("n", 300), "x")}, want: unpack.ErrLimit},
		"path too long":           {entries: []imagetest.Entry{imagetest.File(strings.Repeat(strings.Repeat("n", 200)+"/", 30)+"f", "x")}, want: unpack.ErrLimit},
		"too long by links":       {entries: []imagetest.Entry{imagetest.Dir(wide, 0o755), imagetest.Symlink("l", wide), imagetest.File("l/"+wide+"f", "x")}, want: unpack.ErrLimit, text: "a path longer than"},
		"directory by links":      {entries: []imagetest.Entry{imagetest.Dir(wide, 0o755), imagetest.Symlink("l", wide), imagetest.Dir("l/"+wide[:201*8], 0o755), imagetest.Symlink("m", "l/"+wide[:201*8]), imagetest.Dir("m/"+strings.Repeat("n", 200), 0o755)}, want: unpack.ErrLimit, text: "a path longer than"},
		"link target too long":    {entries: []imagetest.Entry{imagetest.Symlink("l", strings.Repeat("t/", 3000))}, want: unpack.ErrLimit},
		"link to nothing":         {entries: []imagetest.Entry{imagetest.Symlink("l", "")}, want: unpack.ErrHostile},
		"too many entries":        {entries: []imagetest.Entry{imagetest.File("a", ""), imagetest.File("b", ""), imagetest.File("c", "")}, limits: unpack.Limits{Entries: 2}, want: unpack.ErrLimit, text: "more than 2 entries"},
		"too many bytes":          {entries: []imagetest.Entry{imagetest.File("a", strings.Repeat("x", 9000)), imagetest.File("b", strings.Repeat("x", 9000))}, limits: unpack.Limits{Bytes: 10_000}, want: unpack.ErrLimit},
		"xattrs too large":        {entries: []imagetest.Entry{imagetest.File("a", "").With(0o644, 0, 0, "user.a", strings.Repeat("x", 70_000))}, want: unpack.ErrLimit},
		"owner":                   {entries: []imagetest.Entry{imagetest.File("a", "").With(0o644, 1<<32-1, 0)}, want: unpack.ErrHostile},
		"owner beyond 32 bits":    {entries: []imagetest.Entry{imagetest.File("a", "").With(0o644, 1<<40, 0)}, want: unpack.ErrHostile},
		"device number":           {entries: []imagetest.Entry{imagetest.Device("a", 1<<20, 0)}, want: unpack.ErrHostile},
		"unknown type":            {entries: []imagetest.Entry{raw(tar.Header{Typeflag: 'Z', Name: "a"})}, want: unpack.ErrHostile, text: "unknown entry type"},
	} {
		t.Run(name, func(t *testing.T) {
			root, outside := jail(t)
			_, err := unpack.Layer(context.Background(), root, bytes.NewReader(imagetest.Tar(t, tt.entries...)), unpack.Options{Limits: tt.limits})
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got error %v, want %v with %q", err, tt.want, tt.text)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 500) {
				t.Errorf("not one sentence: %q", err)
			}
			checkJail(t, outside)
		})
	}
}

// TestContained has layers that are odd but fine: what they do stays inside.
func TestContained(t *testing.T) {
	for name, tt := range map[string]struct {
		entries []imagetest.Entry
		want    map[string]string // path in the root: content, "->target", "dir", "char MAJOR:MINOR"
		opaque  []string
	}{
		"absolute name":         {[]imagetest.Entry{imagetest.File("/etc/x", "1")}, map[string]string{"etc/x": "1"}, nil},
		"link above the root":   {[]imagetest.Entry{imagetest.Symlink("s", "../../.."), imagetest.File("s/f", "1")}, map[string]string{"f": "1"}, nil},
		"absolute link":         {[]imagetest.Entry{imagetest.Symlink("s", "/etc"), imagetest.File("s/f", "1")}, map[string]string{"etc/f": "1", "s": "->/etc"}, nil},
		"link to proc":          {[]imagetest.Entry{imagetest.Symlink("s", "/proc/self/root"), imagetest.File("s/f", "1")}, map[string]string{"proc/self/root/f": "1"}, nil},
		"overwritten link":      {[]imagetest.Entry{imagetest.Symlink("s", "../canary"), imagetest.File("s", "1")}, map[string]string{"s": "1"}, nil},
		"link then directory":   {[]imagetest.Entry{imagetest.Symlink("s", ".."), imagetest.Dir("s", 0o700), imagetest.File("s/f", "1")}, map[string]string{"s": "dir", "s/f": "1"}, nil},
		"directory then link":   {[]imagetest.Entry{imagetest.File("d/e/f", "0"), imagetest.Symlink("d", ".."), imagetest.File("d/g", "1")}, map[string]string{"d": "->..", "g": "1"}, nil},
		"hard link to link":     {[]imagetest.Entry{imagetest.Symlink("s", "../canary"), imagetest.Link("l", "s")}, map[string]string{"l": "->../canary"}, nil},
		"write over hard link":  {[]imagetest.Entry{imagetest.File("a", "1"), imagetest.Link("b", "a"), imagetest.File("b", "2")}, map[string]string{"a": "1", "b": "2"}, nil},
		"link to itself":        {[]imagetest.Entry{imagetest.File("a", "1"), imagetest.Link("a", "./a")}, map[string]string{"a": "1"}, nil},
		"over a device":         {[]imagetest.Entry{imagetest.Device("n", 1, 3), imagetest.File("n", "1")}, map[string]string{"n": "1"}, nil},
		"device":                {[]imagetest.Entry{imagetest.Device("n", 1, 3)}, map[string]string{"n": "char 1:3"}, nil},
		"directory twice":       {[]imagetest.Entry{imagetest.Dir("d", 0o700), imagetest.File("d/f", "1"), imagetest.Dir("d", 0o755)}, map[string]string{"d/f": "1"}, nil},
		"whiteout":              {[]imagetest.Entry{imagetest.File("d/.wh.x", "")}, map[string]string{"d/x": "char 0:0"}, nil},
		"whiteout twice":        {[]imagetest.Entry{imagetest.File(".wh.x", ""), imagetest.File(".wh.x", "")}, map[string]string{"x": "char 0:0"}, nil},
		"whiteout then file":    {[]imagetest.Entry{imagetest.File(".wh.x", ""), imagetest.File("x", "1")}, map[string]string{"x": "1"}, nil},
		"file then whiteout":    {[]imagetest.Entry{imagetest.File("x", "1"), imagetest.File(".wh.x", "")}, map[string]string{"x": "1"}, nil},
		"whiteout then dir":     {[]imagetest.Entry{imagetest.File(".wh.x", ""), imagetest.Dir("x", 0o755)}, map[string]string{"x": "dir"}, []string{"x"}},
		"dir then whiteout":     {[]imagetest.Entry{imagetest.Dir("x", 0o755), imagetest.File(".wh.x", "")}, map[string]string{"x": "dir"}, []string{"x"}},
		"whiteout then below":   {[]imagetest.Entry{imagetest.File(".wh.x", ""), imagetest.File("x/y", "1")}, map[string]string{"x/y": "1"}, []string{"x"}},
		"opaque":                {[]imagetest.Entry{imagetest.File("d/.wh..wh..opq", ""), imagetest.File("d/f", "1")}, map[string]string{"d/f": "1"}, []string{"d"}},
		"whiteout through link": {[]imagetest.Entry{imagetest.Symlink("s", ".."), imagetest.File("s/.wh.canary", "")}, map[string]string{"canary": "char 0:0"}, nil},
		"aufs":                  {[]imagetest.Entry{imagetest.File(".wh..wh.plnk/1.2", ""), imagetest.File(".wh..wh.aufs", "")}, map[string]string{".wh..wh.plnk": "dir"}, nil},
		"forbidden xattrs":      {[]imagetest.Entry{imagetest.Dir("d", 0o755).With(0o755, 0, 0, "trusted.overlay.opaque", "y", "trusted.overlay.redirect", "/x", "user.overlay.opaque", "y", "security.selinux", "x")}, map[string]string{"d": "dir"}, nil},
		"user xattr on device":  {[]imagetest.Entry{imagetest.Device("n", 1, 3).With(0o666, 0, 0, "user.a", "b")}, map[string]string{"n": "char 1:3"}, nil},
		"dangling link":         {[]imagetest.Entry{imagetest.Symlink("s", "not/here"), imagetest.File("s/f", "1")}, map[string]string{"not/here/f": "1"}, nil},
		"global header":         {[]imagetest.Entry{{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}}, imagetest.File("f", "1")}, map[string]string{"f": "1"}, nil},
		"setgid directory":      {[]imagetest.Entry{imagetest.Dir("d", 0o2777).With(0o2777, 5, 6), imagetest.File("d/f", "1")}, map[string]string{"d/f": "1"}, nil},
		"nothing":               {nil, map[string]string{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			root, outside := jail(t)
			layer := imagetest.Tar(t, tt.entries...)
			res, err := unpack.Layer(context.Background(), root, bytes.NewReader(layer), unpack.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if want := digest.FromBytes(layer); res.DiffID != want {
				t.Errorf("diff ID %s, want %s", res.DiffID, want)
			}
			for path, want := range tt.want {
				if got := look(root.Name() + "/" + path); got != want {
					t.Errorf("%s is %q, want %q", path, got, want)
				}
			}
			for _, path := range tt.opaque {
				v := make([]byte, 8)
				if n, err := unix.Lgetxattr(root.Name()+"/"+path, unpack.OpaqueXattr, v); err != nil || string(v[:n]) != "y" {
					t.Errorf("%s is not opaque: %q, %v", path, v, err)
				}
			}
			if name == "forbidden xattrs" {
				v := make([]byte, 256)
				if n, err := unix.Llistxattr(root.Name()+"/d", v); n != 0 || err != nil {
					t.Errorf("attributes %q, %v; want none", v[:n], err)
				}
			}
			if name == "setgid directory" {
				var st unix.Stat_t
				if err := unix.Lstat(root.Name()+"/d/f", &st); err != nil || st.Gid != 0 {
					t.Errorf("group of the file is %d, want 0 as in the archive", st.Gid)
				}
			}
			checkJail(t, outside)
		})
	}
}

func look(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFLNK:
		target, _ := os.Readlink(path)
		return "->" + target
	case unix.S_IFCHR:
		return fmt.Sprintf("char %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	p, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(p)
}

// zeros writes n zero bytes as the content of one file, compressed.
func zeros(t *testing.T, n int64, compress func(io.Writer) io.WriteCloser, sized bool) []byte {
	t.Helper()
	var b bytes.Buffer
	z := compress(&b)
	w := tar.NewWriter(z)
	if sized {
		if err := w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: n, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	} else {
		w.Close() // zeros after the end
	}
	block := make([]byte, 1<<20)
	for range n >> 20 {
		if _, err := z.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	z.Close()
	return b.Bytes()
}

func TestBombs(t *testing.T) {
	gz := func(w io.Writer) io.WriteCloser { z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed); return z }
	zst := func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }
	limits := unpack.Limits{RatioFloor: 16 << 20}
	for name, tt := range map[string]struct {
		layer  []byte
		limits unpack.Limits
		text   string
	}{
		"gzip":                  {zeros(t, 64<<20, gz, true), limits, "compression bomb"},
		"zstd":                  {zeros(t, 64<<20, zst, true), limits, "compression bomb"},
		"gzip after the end":    {zeros(t, 64<<20, gz, false), limits, "compression bomb"},
		"larger than the limit": {zeros(t, 64<<20, gz, true), unpack.Limits{Bytes: 32 << 20}, "larger than 32 MiB"},
		"a huge header":         {hugeHeader(t), unpack.Limits{}, "larger than 32 GiB"},
		"stream over the limit": {zeros(t, 64<<20, gz, false), unpack.Limits{Bytes: 32 << 20}, "longer than 32 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			root, outside := jail(t)
			_, err := unpack.Layer(context.Background(), root, bytes.NewReader(tt.layer), unpack.Options{Limits: tt.limits})
			if !errors.Is(err, unpack.ErrLimit) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got error %v, want ErrLimit with %q", err, tt.text)
			}
			var st unix.Stat_t
			if unix.Lstat(root.Name()+"/zeros", &st) == nil && st.Blocks > 1024 {
				t.Errorf("zeros take %d blocks of disk", st.Blocks)
			}
			checkJail(t, outside)
		})
	}
}

// TestDefaultLimits has the bombs that the default limits are for. They are
// made of gzip members that repeat, which readers take for one stream.
func TestDefaultLimits(t *testing.T) {
	mib := imagetest.Gzip(make([]byte, 1<<20))
	tenGB := header(t, tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: 10 << 30, Mode: 0o644, Format: tar.FormatGNU})
	whiteouts := header(t, tar.Header{Typeflag: tar.TypeReg, Name: ".wh.x", Mode: 0o644, Format: tar.FormatUSTAR})
	thousand := imagetest.Gzip(bytes.Repeat(whiteouts, 1000))
	for name, tt := range map[string]struct {
		layer io.Reader
		text  string
	}{
		"10 GB of zeros":    {io.MultiReader(bytes.NewReader(imagetest.Gzip(tenGB)), &repeat{p: mib, n: 10 << 10}), "compression bomb"},
		"a million and one": {io.MultiReader(&repeat{p: thousand, n: 1000}, bytes.NewReader(imagetest.Gzip(whiteouts))), "more than 1000000 entries"},
	} {
		root, outside := jail(t)
		_, err := unpack.Layer(context.Background(), root, tt.layer, unpack.Options{})
		if !errors.Is(err, unpack.ErrLimit) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want ErrLimit with %q", name, err, tt.text)
		}
		checkJail(t, outside)
	}
}

// repeat reads p n times.
type repeat struct {
	p   []byte
	n   int
	off int
}

func (r *repeat) Read(b []byte) (int, error) {
	if r.off == len(r.p) {
		r.n, r.off = r.n-1, 0
	}
	if r.n == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.p[r.off:])
	r.off += n
	return n, nil
}

// header is that of one entry without its content.
func header(t *testing.T, h tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// hugeHeader promises 10 TiB.
func hugeHeader(t *testing.T) []byte {
	return header(t, tar.Header{Name: "huge", Typeflag: tar.TypeReg, Size: 10 << 40, Mode: 0o644, Format: tar.FormatPAX})
}

func TestBudgetIsShared(t *testing.T) {
	budget := unpack.NewBudget(2*unpack.EntryBytes + 1000)
	layer := imagetest.Tar(t, imagetest.File("f", strings.Repeat("x", 600)))
	for i, want := range []error{nil, unpack.ErrLimit} {
		root, _ := jail(t)
		_, err := unpack.Layer(context.Background(), root, bytes.NewReader(layer), unpack.Options{Budget: budget})
		if !errors.Is(err, want) {
			t.Errorf("layer %d: got %v, want %v", i, err, want)
		}
	}
}

// TestBudgetCountsEntries has layers that fill a disk without a byte of content.
func TestBudgetCountsEntries(t *testing.T) {
	var files, paths, attributes []imagetest.Entry
	for i := range 20 {
		files = append(files, imagetest.File(fmt.Sprint(i), ""))
		paths = append(paths, imagetest.File(strings.Repeat("d/", i)+"f", ""))
		attributes = append(attributes, imagetest.File("f", "").With(0o644, 0, 0, "user.a", strings.Repeat("v", 2000)))
	}
	for name, tt := range map[string]struct {
		entries []imagetest.Entry
		cost    int64
	}{
		"files":       {files, 20 * unpack.EntryBytes},
		"directories": {paths, 39 * unpack.EntryBytes},
		"attributes":  {attributes, 20 * (unpack.EntryBytes + 2000)},
	} {
		layer := imagetest.Tar(t, tt.entries...)
		for budget, want := range map[int64]error{tt.cost + 2000: nil, tt.cost - 1: unpack.ErrLimit} {
			root, _ := jail(t)
			_, err := unpack.Layer(context.Background(), root, bytes.NewReader(layer), unpack.Options{Budget: unpack.NewBudget(budget)})
			if !errors.Is(err, want) {
				t.Errorf("%s, %d bytes: got %v, want %v", name, budget, err, want)
			}
		}
	}
}

func TestDamagedStreams(t *testing.T) {
	layer := imagetest.Tar(t, imagetest.File("f", strings.Repeat("some text ", 10_000)))
	gz, zst := imagetest.Gzip(layer), imagetest.Zstd(layer)
	flip := func(p []byte) []byte {
		p = bytes.Clone(p)
		for i := len(p) / 2; i < len(p)/2+8; i++ {
			p[i] ^= 0xff
		}
		return p
	}
	for name, tt := range map[string]struct {
		layer []byte
		want  error
	}{
		"plain truncated":  {layer[:3000], unpack.ErrTruncated},
		"gzip truncated":   {gz[:len(gz)/2], unpack.ErrTruncated},
		"zstd truncated":   {zst[:len(zst)/2], unpack.ErrTruncated},
		"gzip damaged":     {flip(gz), unpack.ErrHostile},
		"zstd damaged":     {flip(zst), unpack.ErrHostile},
		"gzip and garbage": {append(bytes.Clone(gz), "garbage garbage"...), unpack.ErrHostile},
		"no tar":           {bytes.Repeat([]byte("no tar at all "), 200), unpack.ErrHostile},
		"bzip2":            {[]byte("BZh91AY&SY"), unpack.ErrHostile},
		"xz":               {[]byte("\xfd7zXZ\x00\x00"), unpack.ErrHostile},
		"header damaged":   {append(bytes.Clone(layer[:100]), append([]byte("x"), layer[101:]...)...), unpack.ErrHostile},
	} {
		root, outside := jail(t)
		_, err := unpack.Layer(context.Background(), root, bytes.NewReader(tt.layer), unpack.Options{})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got error %v, want %v", name, err, tt.want)
		}
		checkJail(t, outside)
	}
	for _, good := range [][]byte{gz, zst, append(imagetest.Gzip(layer[:512]), imagetest.Gzip(layer[512:])...)} {
		root, _ := jail(t)
		res, err := unpack.Layer(context.Background(), root, bytes.NewReader(good), unpack.Options{})
		if err != nil || res.DiffID != digest.FromBytes(layer) {
			t.Errorf("good layer: %+v, %v", res, err)
		}
	}
}

func TestCancel(t *testing.T) {
	root, _ := jail(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := unpack.Layer(ctx, root, bytes.NewReader(imagetest.Tar(t, imagetest.File("f", strings.Repeat("x", 10<<20)))), unpack.Options{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// TestManyEntries makes more directories than stay open, and checks the
// implied ones.
func TestManyEntries(t *testing.T) {
	var entries []imagetest.Entry
	for i := range 300 {
		entries = append(entries, imagetest.File(fmt.Sprintf("d%d/e/f%d", i%150, i), "x"))
	}
	root, _ := jail(t)
	before := openDescriptors(t)
	res, err := unpack.Layer(context.Background(), root, bytes.NewReader(imagetest.Tar(t, entries...)), unpack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := 1 + 150 + 150; len(res.Implied) != want || res.Entries != 300 {
		t.Errorf("%d implied directories and %d entries, want %d and 300", len(res.Implied), res.Entries, want)
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// TestDeepHardLink links between two directories that lie deeper than
// descriptors are kept open: opening the one closes the other.
func TestDeepHardLink(t *testing.T) {
	for _, depth := range []int{62, 64, 126} {
		root, outside := jail(t)
		a, b := strings.Repeat("a/", depth), strings.Repeat("b/", depth)
		entries := []imagetest.Entry{imagetest.File(a+"f", "right")}
		for i := 1; i < depth; i++ {
			entries = append(entries, imagetest.File(strings.Repeat("b/", i)+"f", "wrong"))
		}
		entries = append(entries, imagetest.File(b+"x", "y"), imagetest.Link(b+"name", a+"f"))
		_, err := unpack.Layer(context.Background(), root, bytes.NewReader(imagetest.Tar(t, entries...)), unpack.Options{})
		got, _ := os.ReadFile(filepath.Join(outside, "root", b, "name"))
		if err != nil || string(got) != "right" {
			t.Errorf("%d directories deep the link holds %q, %v; want \"right\"", depth, got, err)
		}
		checkJail(t, outside)
	}
}

// TestImpliedDirectories has few entries that lie in many directories.
func TestImpliedDirectories(t *testing.T) {
	deep := func(i int) string { return fmt.Sprintf("%d/", i) + strings.Repeat("d/", 99) }
	var entries []imagetest.Entry
	for i := range 20 {
		entries = append(entries, imagetest.File(deep(i)+"f", ""))
	}
	for limit, want := range map[int]error{20 * 101: nil, 20*101 - 1: unpack.ErrLimit, 100: unpack.ErrLimit} {
		root, outside := jail(t)
		_, err := unpack.Layer(context.Background(), root, bytes.NewReader(imagetest.Tar(t, entries...)), unpack.Options{Limits: unpack.Limits{Entries: limit}})
		if !errors.Is(err, want) {
			t.Errorf("%d entries: got %v, want %v", limit, err, want)
		}
		checkJail(t, outside)
	}
	// Making the same ones again and again costs as much.
	entries = nil
	for range 20 {
		entries = append(entries, imagetest.File(deep(0)+"f", ""), imagetest.File("0", ""), imagetest.Dir("0", 0o755))
	}
	root, _ := jail(t)
	_, err := unpack.Layer(context.Background(), root, bytes.NewReader(imagetest.Tar(t, entries...)), unpack.Options{Limits: unpack.Limits{Entries: 500}})
	if !errors.Is(err, unpack.ErrLimit) || !strings.Contains(err.Error(), "more than 500 entries and directories") {
		t.Errorf("directories made again: got %v, want ErrLimit", err)
	}
}

// TestDirectoriesInMemory has directories with much that is kept until the end
// of the layer.
func TestDirectoriesInMemory(t *testing.T) {
	big := strings.Repeat("v", 3000)
	dirs := func(n int) (entries []imagetest.Entry) {
		for i := range n {
			entries = append(entries, imagetest.Dir(fmt.Sprintf("d%d", i), 0o755).With(0o755, 0, 0, "user.a", big))
		}
		return entries
	}
	long := strings.Repeat("n", 200)
	many := imagetest.Dir("many", 0o755)
	for i := range 400 {
		many = many.With(0o755, 0, 0, fmt.Sprintf("user.%d", i), "")
	}
	plain := func(n int) (entries []imagetest.Entry) {
		for i := range n {
			entries = append(entries, imagetest.Dir(fmt.Sprintf("d%d", i), 0o755))
		}
		return entries
	}
	for name, tt := range map[string]struct {
		entries []imagetest.Entry
		want    error
	}{
		"some directories":     {plain(45), nil},
		"directories":          {plain(47), unpack.ErrLimit},
		"some attributes":      {dirs(6), nil},
		"attributes":           {dirs(7), unpack.ErrLimit},
		"many attributes":      {[]imagetest.Entry{many}, unpack.ErrLimit},
		"attributes replaced":  {[]imagetest.Entry{dirs(1)[0], dirs(1)[0], dirs(1)[0], dirs(1)[0], dirs(1)[0], dirs(1)[0], dirs(1)[0], dirs(1)[0]}, nil},
		"directories replaced": {[]imagetest.Entry{dirs(5)[0], dirs(5)[1], dirs(5)[2], dirs(5)[3], imagetest.File("d0", ""), imagetest.File("d1", ""), imagetest.File("d2", ""), imagetest.File("d3", ""), dirs(5)[4], dirs(5)[0], dirs(5)[1], dirs(5)[2]}, nil},
		"paths":                {[]imagetest.Entry{imagetest.File(strings.Repeat(long+"/", 15)+"f", "")}, unpack.ErrLimit},
		"a path":               {[]imagetest.Entry{imagetest.File(strings.Repeat(long+"/", 10)+"f", "")}, nil},
		"the root":             {[]imagetest.Entry{imagetest.Dir(".", 0o755).With(0o755, 0, 0, "user.a", strings.Repeat(big, 8))}, unpack.ErrLimit},
	} {
		root, _ := jail(t)
		_, err := unpack.Layer(context.Background(), root, bytes.NewReader(imagetest.Tar(t, tt.entries...)), unpack.Options{Limits: unpack.Limits{DirBytes: 24_000}})
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), "attributes of the directories") {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

// TestDirectoriesKeepNoHeaders has directories whose headers are large, in what
// nobody keeps.
func TestDirectoriesKeepNoHeaders(t *testing.T) {
	comment := imagetest.Dir("d", 0o755).With(0o755, 0, 0, "user.a", "b")
	comment.PAXRecords["comment"] = strings.Repeat("c", 900_000)
	var entries []imagetest.Entry
	for i := range 64 {
		e := comment
		e.Name = fmt.Sprintf("é%d/", i)
		entries = append(entries, e)
	}
	layer := imagetest.Gzip(imagetest.Tar(t, entries...))
	root, _ := jail(t)
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	_, err := unpack.Layer(context.Background(), root, bytes.NewReader(layer), unpack.Options{Progress: func(int64) {
		runtime.GC()
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		peak.HeapAlloc = max(peak.HeapAlloc, now.HeapAlloc)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if peak.HeapAlloc > before.HeapAlloc+24<<20 {
		t.Errorf("the heap grew by %d bytes", peak.HeapAlloc-before.HeapAlloc)
	}
}

func openDescriptors(t *testing.T) int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func FuzzLayer(f *testing.F) {
	f.Add(imagetest.Tar(f, imagetest.Dir("a", 0o755), imagetest.File("a/b", "x"), imagetest.Link("c", "a/b"), imagetest.Symlink("d", "../.."), imagetest.File("d/e", "y")))
	f.Add(imagetest.Tar(f, imagetest.File("a/.wh.b", ""), imagetest.File(".wh..wh..opq", ""), imagetest.Device("n", 1, 3)))
	f.Add(imagetest.Gzip(imagetest.Tar(f, imagetest.File("x", "y").With(0o4755, 1, 2, "user.a", "b"))))
	f.Add(imagetest.Zstd(imagetest.Tar(f, imagetest.File("x", "y"))))
	f.Fuzz(func(t *testing.T, layer []byte) {
		root, outside := jail(t)
		limits := unpack.Limits{Bytes: 1 << 20, Entries: 200, Ratio: 100, RatioFloor: 1 << 20}
		res, err := unpack.Layer(context.Background(), root, bytes.NewReader(layer), unpack.Options{Limits: limits})
		if err == nil && res.Bytes > limits.Bytes {
			t.Errorf("%d bytes were unpacked", res.Bytes)
		}
		checkJail(t, outside)
	})
}
