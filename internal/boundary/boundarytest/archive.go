package boundarytest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// filesOf returns what copies in and out of an instance.
func (r *run) filesOf(in boundary.Instance) boundary.Files {
	r.Helper()
	f, ok := in.(boundary.Files)
	if !ok {
		r.Fatal("this boundary cannot reach the files of a workload")
	}
	return f
}

// tarOf makes an archive of headers, each with its content after a NUL in its
// name.
func (r *run) tarOf(headers ...tar.Header) *bytes.Buffer {
	r.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		name, content, _ := strings.Cut(h.Name, "\x00")
		h.Name, h.Size = name, int64(len(content))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			r.Fatal(err)
		}
		io.WriteString(w, content)
	}
	if err := w.Close(); err != nil {
		r.Fatal(err)
	}
	return &b
}

// list reads a path's archive as lines of type, name, owner and content.
func (r *run) list(f boundary.Files, path string, o boundary.ReadOptions) []string {
	r.Helper()
	var b bytes.Buffer
	if err := f.ReadArchive(r.ctx(), path, o, &b); err != nil {
		r.Errorf("read %s: %v", path, err)
		return nil
	}
	var out []string
	for t := tar.NewReader(&b); ; {
		h, err := t.Next()
		if err == io.EOF {
			slices.Sort(out)
			return out
		}
		if err != nil {
			r.Fatalf("archive of %s: %v", path, err)
		}
		content, err := io.ReadAll(t)
		if err != nil {
			r.Fatalf("archive of %s: %v", path, err)
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%c %s %d:%d %s%s", h.Typeflag, h.Name, h.Uid, h.Gid, h.Linkname, content)))
	}
}

// testArchives copies in and out, before and while the workload runs.
func testArchives(r *run) {
	in := r.create(r.spec("pause"), boundary.Stdio{})
	f := r.filesOf(in)
	check := func(when string) {
		r.Helper()
		owned := tar.Header{Name: when + "/f\x00text", Mode: 0o4750, Uid: 7, Gid: 8}
		link := tar.Header{Name: when + "/l", Typeflag: tar.TypeSymlink, Linkname: "/etc", Uid: 7, Gid: 8}
		again := tar.Header{Name: when + "/again", Typeflag: tar.TypeLink, Linkname: when + "/f"}
		if err := f.WriteArchive(r.ctx(), "/tmp", boundary.ArchiveOptions{Owners: true, NoOverwriteDir: true}, r.tarOf(owned, link, again)); err != nil {
			r.Errorf("%s: write with owners: %v", when, err)
		}
		if err := f.WriteArchive(r.ctx(), "/tmp/"+when, boundary.ArchiveOptions{}, r.tarOf(tar.Header{Name: "root\x00root's", Mode: 0o600, Uid: 7})); err != nil {
			r.Errorf("%s: write: %v", when, err)
		}
		got := r.list(f, "/tmp/"+when, boundary.ReadOptions{})
		for _, want := range []string{"0 " + when + "/root 0:0 root's", "2 " + when + "/l 7:8 /etc", "5 " + when + "/ 0:0"} {
			if !slices.Contains(got, want) {
				r.Errorf("%s: %q is not in %q", when, want, got)
			}
		}
		st, err := f.StatPath(r.ctx(), "/tmp/"+when+"/f")
		if err != nil || st.Name != "f" || st.Size != 4 || st.Mode != syscall.S_IFREG|0o4750 {
			r.Errorf("%s: %+v, %v", when, st, err)
		}
		if st, err := f.StatPath(r.ctx(), "/tmp/"+when+"/l"); err != nil || st.LinkTarget != "/etc" {
			r.Errorf("%s: %+v, %v", when, st, err)
		}
		// An absolute link means the workload's own.
		through := r.list(f, "/tmp/"+when+"/l/passwd", boundary.ReadOptions{})
		if len(through) != 1 || !strings.HasPrefix(through[0], "0 passwd 0:0 root:x:0:0::") || len(through[0]) > 50 {
			r.Errorf("%s: through a link: %q", when, through)
		}
	}
	check("created")
	refused(r, f)
	if err := in.Start(r.ctx()); err != nil {
		r.Fatal(err)
	}
	check("running")
	refused(r, f)
	if exit, out := r.exec(in, r.process("read", "/tmp/created/root")); exit.Code != 0 || out != "root's\n" {
		r.Errorf("the workload reads %+v, %q", exit, out)
	}
	changes, err := f.Changes(r.ctx())
	if err != nil {
		r.Fatal(err)
	}
	var text strings.Builder
	for _, c := range changes {
		text.WriteString(c.Kind + c.Path + " ")
	}
	const want = "C/tmp A/tmp/created A/tmp/created/again A/tmp/created/f A/tmp/created/l A/tmp/created/root " +
		"A/tmp/running A/tmp/running/again A/tmp/running/f A/tmp/running/l A/tmp/running/root "
	if text.String() != want {
		r.Errorf("changes: got %s, want %s", text.String(), want)
	}
	if err := in.Delete(r.ctx()); err != nil {
		r.Error(err)
	}
	if _, err := f.StatPath(r.ctx(), "/tmp"); err == nil {
		r.Error("a path of a workload that was deleted")
	}
}

// refused asks for what there is not, or what must not be.
func refused(r *run, f boundary.Files) {
	r.Helper()
	var none bytes.Buffer
	for _, path := range []string{"/nothing", "/tmp/nothing/x", "/../../nothing"} {
		if err := f.ReadArchive(r.ctx(), path, boundary.ReadOptions{}, &none); !errors.Is(err, workload.ErrNoPath) {
			r.Errorf("read %s: %v", path, err)
		}
		if _, err := f.StatPath(r.ctx(), path); !errors.Is(err, workload.ErrNoPath) {
			r.Errorf("stat %s: %v", path, err)
		}
		if err := f.WriteArchive(r.ctx(), path, boundary.ArchiveOptions{}, r.tarOf()); !errors.Is(err, workload.ErrNoPath) {
			r.Errorf("write %s: %v", path, err)
		}
	}
	for path, why := range map[string]string{"/proc/1/environ": "kernel's view", "/proc": "kernel's view", "/proc/self/root/etc": ""} {
		if err := f.ReadArchive(r.ctx(), path, boundary.ReadOptions{}, &none); err == nil || !strings.Contains(err.Error(), why) {
			r.Errorf("read %s: %v", path, err)
		}
	}
	if err := f.WriteArchive(r.ctx(), "/etc/passwd", boundary.ArchiveOptions{}, r.tarOf()); err == nil || !strings.Contains(err.Error(), "not a directory") {
		r.Errorf("write below a file: %v", err)
	}
	if err := f.WriteArchive(r.ctx(), "/tmp", boundary.ArchiveOptions{}, r.tarOf(tar.Header{Name: "../up\x00x"})); err == nil || !strings.Contains(err.Error(), "hostile") {
		r.Errorf("a hostile archive: %v", err)
	}
	if err := f.WriteArchive(r.ctx(), "/tmp", boundary.ArchiveOptions{}, strings.NewReader(strings.Repeat("no archive ", 100000))); err == nil || !strings.Contains(err.Error(), "archive") {
		r.Errorf("no archive: %v", err)
	}
	if none.Len() != 0 {
		r.Errorf("%d bytes of what was refused", none.Len())
	}
}

// testArchivesOfMounts copies in and out of a volume.
func testArchivesOfMounts(r *run) {
	dir := r.TempDir()
	r.readable(dir)
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("of the host"), 0o644); err != nil {
		r.Fatal(err)
	}
	s := r.spec("pause")
	s.Mounts = []workload.Mount{
		{Type: "bind", Source: dir, Target: "/vol", Recursive: true},
		{Type: "tmpfs", Target: "/scratch"},
	}
	in := r.start(s, boundary.Stdio{})
	f := r.filesOf(in)
	if err := f.WriteArchive(r.ctx(), "/vol", boundary.ArchiveOptions{Owners: true}, r.tarOf(tar.Header{Name: "sub/g\x00new", Mode: 0o640, Uid: 7, Gid: 8})); err != nil {
		r.Errorf("write: %v", err)
	}
	if err := f.WriteArchive(r.ctx(), "/scratch", boundary.ArchiveOptions{}, r.tarOf(tar.Header{Name: "h\x00in memory", Mode: 0o600})); err != nil {
		r.Errorf("write: %v", err)
	}
	fi, err := os.Stat(filepath.Join(dir, "sub/g"))
	if err != nil {
		r.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 7 || st.Gid != 8 || fi.Mode() != 0o640 {
		r.Errorf("on the host: %v of %d:%d", fi.Mode(), st.Uid, st.Gid)
	}
	whole := r.list(f, "/", boundary.ReadOptions{})
	one := r.list(f, "/", boundary.ReadOptions{OneFileSystem: true})
	for line, there := range map[string][2]bool{
		"5 vol/ 0:0": {true, true}, "0 vol/f 0:0 of the host": {true, false}, "0 vol/sub/g 7:8 new": {true, false},
		"0 scratch/h 0:0 in memory": {true, false}, "5 proc/ 0:0": {true, true}, "5 sys/ 0:0": {true, true}, "5 dev/ 0:0": {true, true},
		"0 proc/version 0:0": {false, false},
	} {
		if a, b := slices.Contains(whole, line), slices.Contains(one, line); a != there[0] || b != there[1] {
			r.Errorf("%q: whole %v, one file system %v, want %v", line, a, b, there)
		}
	}
	if n := len(one); n > 40 {
		r.Errorf("%d files in an export, such as %q", n, one[:40])
	}
}
