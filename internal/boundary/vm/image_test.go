package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/template"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ofImage is a program as somebody runs it: with an image, and names of its own.
func ofImage(hostname string, args ...string) workload.Spec {
	s := program(args...)
	s.Hostname, s.Image = hostname, workload.Image{Reference: "example.com/suite:1", Digest: "sha256:1"}
	s.Process.Env = []string{"OWNER=" + hostname}
	return s
}

// TestImageTemplate: the third start of an image makes a template of it. What goes
// on from that is in nothing another's, whatever it runs, and leaves the template as
// it is.
func TestImageTemplate(t *testing.T) {
	guard(t)
	f := newFixture(t)
	store := f.templates(t)
	first := ofImage("first", "exit", "0")
	p := f.prepare(t, first)
	var begun []string
	for range often {
		p := p
		p.Dir, p.Cgroup = "", testCgroup
		if err := (Boundary{}).Template(t.Context(), first, p, Progress{Begin: func(image string) { begun = append(begun, image) }}); err != nil {
			t.Fatal(err)
		}
	}
	if len(begun) != 2 || begun[0] != "" || begun[1] != first.Image.Reference {
		t.Fatalf("made %q", begun)
	}
	f.ensureImage(t, first, p) // from here on all else boots, and says so
	seen := map[string]bool{}
	for _, host := range []string{"second", "third"} {
		files := filepath.Join(t.TempDir(), "hosts")
		if err := os.WriteFile(files, []byte("192.0.2.7\t"+host+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, x := range []struct{ what, want string }{{"hostname", host + "\n"}, {"env", "OWNER=" + host + "\nHOME=/\n"}} {
			c := f.run(t, ofImage(host, strings.Fields(x.what)...), nil)
			if c.out != x.want || c.exit.Code != 0 || len(c.notices) > 0 {
				t.Errorf("%s: %+v, want %q", x.what, c, x.want)
			}
		}
		for _, random := range []string{"/dev/urandom", "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/random/uuid"} {
			c := f.run(t, ofImage(host, "head", random, "36"), nil)
			if len(c.out) < 36 || seen[c.out] || len(c.notices) > 0 {
				t.Errorf("%s: %+v, seen %v", random, c, seen[c.out])
			}
			seen[c.out] = true
		}
	}
	if c := f.run(t, ofImage("fourth", "clock"), nil); !near(c.out, time.Now()) {
		t.Errorf("the clock says %q", c.out)
	}
	key := onlyKey(t, store)
	if err := os.Remove(filepath.Join(f.machine.Templates, key, "seen")); err != nil {
		t.Fatal(err)
	}
	o, err := store.Open(key) // compares the digests
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
}

// TestImageTemplateFiles: the files of the engine's are the workload's, not those
// of a workload for nobody, and what it writes stays when it is started again, where
// no template of the image could serve it.
func TestImageTemplateFiles(t *testing.T) {
	guard(t)
	f := newFixture(t)
	f.templates(t)
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("192.0.2.7\tkept\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := ofImage("kept", "head", "/etc/hosts", "15")
	s.AutoRemove = false
	var p boundary.Prepared
	c := f.run(t, s, func(mine *boundary.Prepared) {
		mine.Files = map[string]string{"/etc/hosts": hosts}
		f.ensureImage(t, s, *mine)
		p = *mine
	})
	if c.out != fmt.Sprintf("%x\n", "192.0.2.7\tkept\n") || len(c.notices) > 0 {
		t.Errorf("%+v", c)
	}
	if blank(p.Machine) {
		t.Error("its disk is taken for one that nobody has written to")
	}
	life := func(args ...string) cloned {
		t.Helper()
		s := s
		s.Process.Args = append([]string{"/bin/program"}, args...)
		return f.run(t, s, func(mine *boundary.Prepared) {
			mine.Files, mine.Machine.Data, mine.Machine.Blank = p.Files, p.Machine.Data, p.Machine.Blank
			mine.IDBase, mine.IDCount = p.IDBase, p.IDCount
		})
	}
	if c := life("write", "/written", "precious"); c.exit.Code != 0 {
		t.Fatalf("%+v", c)
	}
	if c := life("head", "/written", "8"); c.out != fmt.Sprintf("%x\n", "precious") {
		t.Errorf("what was written is gone: %+v", c)
	}
}

// TestImageTemplateVolumes: one template serves workloads with volumes at the same
// places, each with its own, and whatever is wrong with a volume is told as ever.
func TestImageTemplateVolumes(t *testing.T) {
	guard(t)
	f := newFixture(t)
	store := f.templates(t)
	mounted := func(dir string, args ...string) workload.Spec {
		s := ofImage("box", args...)
		s.Process.Cwd = "/vol"
		s.Mounts = []workload.Mount{
			{Type: "bind", Source: dir, Target: "/vol"}, {Type: "tmpfs", Target: "/tmp"},
			{Type: "bind", Source: filepath.Join(dir, "text"), Target: "/etc/text", ReadOnly: true},
		}
		return s
	}
	var dirs []string
	for _, text := range []string{"first of all", "second of all"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "text"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	s := mounted(dirs[0], "exit", "0")
	f.ensureImage(t, s, f.prepare(t, s))
	key := onlyKey(t, store)
	for n, dir := range dirs {
		want := []string{"first ", "second"}[n]
		for _, name := range []string{"/vol/text", "text", "/etc/text"} {
			if c := f.run(t, mounted(dir, "head", name, "6"), nil); c.out != fmt.Sprintf("%x\n", want) || c.exit.Code != 0 || len(c.notices) > 0 {
				t.Errorf("%s: %+v, want %x", name, c, want)
			}
		}
		if c := f.run(t, mounted(dir, "write", "/vol/new", want), nil); c.exit.Code != 0 || len(c.notices) > 0 {
			t.Errorf("write: %+v", c)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "new")); err != nil || string(b) != want {
			t.Errorf("on the host: %q, %v", b, err)
		}
		if c := f.run(t, mounted(dir, "write", "/etc/text", "x"), nil); c.exit.Code == 0 || len(c.notices) > 0 {
			t.Errorf("write to what is read-only: %+v", c)
		}
	}
	missing := mounted(filepath.Join(t.TempDir(), "missing"), "exit", "0")
	p := f.prepare(t, missing)
	if _, err := (Boundary{}).Create(t.Context(), missing, p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a source that is missing: %v", err)
	}
	if got := onlyKey(t, store); got != key {
		t.Error("the template is gone")
	}
}

// TestHeldVolumes: what can be made before it is known what a volume holds.
func TestHeldVolumes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bind := func(source, target string) workload.Mount {
		return workload.Mount{Type: "bind", Source: source, Target: target}
	}
	for _, tt := range []struct {
		cwd    string
		mounts []workload.Mount
		want   string // the names, "no" for none
	}{
		{"/", nil, "map[]"},
		{"/", []workload.Mount{{Type: "tmpfs", Target: "/tmp"}}, "map[]"},
		{"/", []workload.Mount{{Type: "tmpfs", Target: "/tmp"}, bind(dir, "/data"), bind(file, "/etc/conf")}, "map[1:directory-1 2:file-2]"},
		{"/", []workload.Mount{{Type: "volume", Source: "data", Target: "/data"}}, "map[0:directory-0]"},
		{"/", []workload.Mount{{Type: "bind", Source: dir + "/new", Target: "/data", CreateSource: true}}, "map[0:directory-0]"},
		{"/", []workload.Mount{bind(dir+"/new", "/data")}, "no"},
		{"/", []workload.Mount{{Type: "bind", Source: dir, Target: "/data", Propagation: "rshared"}}, "no"},
		{"/data", []workload.Mount{bind(dir, "/data/")}, "map[0:directory-0]"},
		{"/data/sub", []workload.Mount{bind(dir, "/data")}, "no"},
		{"/database", []workload.Mount{bind(dir, "/data")}, "map[0:directory-0]"},
		{"/", []workload.Mount{bind(dir, "/etc")}, "no"},
		{"/", []workload.Mount{bind(file, "/etc/passwd")}, "no"},
		{"/", []workload.Mount{bind(dir, "/")}, "no"},
		{"/", []workload.Mount{bind(dir, "/data"), bind(dir, "/data/inner")}, "no"},
		{"/", []workload.Mount{bind(dir, "/data"), {Type: "tmpfs", Target: "/data/a/b"}}, "no"},
		{"/", []workload.Mount{bind(dir, "/data/a"), bind(dir, "/data/b")}, "map[0:directory-0 1:directory-1]"},
	} {
		_, names, ok := heldVolumes(tt.mounts, tt.cwd)
		got := fmt.Sprint(names)
		if !ok {
			got = "no"
		}
		if got != tt.want {
			t.Errorf("%+v in %s: %s, want %s", tt.mounts, tt.cwd, got, tt.want)
		}
	}
}

// TestImageTemplateFaults: what is asked for wrongly fails as ever, and a template
// that is of no use is replaced by a boot, and removed.
func TestImageTemplateFaults(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	store := f.templates(t)
	s := ofImage("box", "exit", "7")
	f.ensureImage(t, s, f.prepare(t, s))
	key := onlyKey(t, store)
	for _, x := range []struct {
		args []string
		want error
	}{{[]string{"nothing-like-this"}, workload.ErrCommandNotFound}, {[]string{"/etc/passwd"}, workload.ErrNotExecutable}} {
		bad := s
		bad.ID, bad.Process.Args = workload.NewID(), x.args
		p := f.prepare(t, bad)
		streams(t, &p)
		if _, err := (Boundary{}).Create(t.Context(), bad, p); !errors.Is(err, x.want) {
			t.Errorf("%s: got %v, want %v", x.args, err, x.want)
		}
	}
	if got := onlyKey(t, store); got != key {
		t.Errorf("the template is gone")
	}
	// More than there is room for in a process that exists: made anew, and the
	// template is not to blame.
	long := s
	long.ID, long.Process.Env = workload.NewID(), []string{"LONG=" + strings.Repeat("x", 100<<10), "B=" + strings.Repeat("x", 120<<10), "C=" + strings.Repeat("x", 120<<10), "D=" + strings.Repeat("x", 120<<10), "E=" + strings.Repeat("x", 120<<10)}
	if c := f.run(t, long, nil); c.exit.Code != 7 || len(c.notices) != 2 {
		t.Errorf("%d notices, exit %+v", len(c.notices), c.exit)
	}
	if got := onlyKey(t, store); got != key {
		t.Errorf("the template is gone")
	}
	dir := filepath.Join(f.machine.Templates, key)
	for name, damage := range map[string]func() error{
		"state":  func() error { return replace(filepath.Join(dir, "state"), []byte("no state")) },
		"memory": func() error { return flip(filepath.Join(dir, "memory")) },
		"disk":   func() error { return os.Truncate(filepath.Join(dir, "disk"), 4096) },
	} {
		t.Run(name, func(t *testing.T) {
			f.ensureImage(t, s, f.prepare(t, s))
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			c := f.run(t, ofImage("box", "exit", "7"), nil)
			if c.exit.Code != 7 || len(c.notices) != 2 || !strings.Contains(c.notices[0], "made anew") || !strings.Contains(c.notices[1], "boots") {
				t.Errorf("exit %+v, noticed %q", c.exit, c.notices)
			}
			if _, err := store.Get(key); !errors.Is(err, template.ErrNotFound) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
}

// TestImageTemplateTries: a template that cannot be made costs fewer and fewer of the
// starts that would like to have it.
func TestImageTemplateTries(t *testing.T) {
	dir := t.TempDir()
	m := boundary.Machine{Image: filepath.Join(dir, "image"), Data: filepath.Join(dir, "data"), GuestIDs: boundary.GuestIDs}
	for _, name := range []string{m.Image, m.Data} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if m.Blank, err = identity(m.Data); err != nil {
		t.Fatal(err)
	}
	// A cgroup that cannot be: nothing is started.
	k := &maker{s: ofImage("box", "exit", "0"), p: boundary.Prepared{Machine: &m}, dir: filepath.Join(dir, "templates"), cgroups: "../outside", key: "generic", parts: map[string]string{}}
	var tried []int
	for n := 1; n <= 30; n++ {
		ready, err := k.ofImage(t.Context(), Progress{Begin: func(string) { tried = append(tried, n) }})
		if ready || (err != nil) != slices.Contains(tried, n) {
			t.Errorf("start %d: ready %v, %v", n, ready, err)
		}
	}
	if want := []int{3, 6, 12, 24}; !slices.Equal(tried, want) {
		t.Errorf("tried by the starts %v, want %v", tried, want)
	}
}

// streams gives a workload an output and an error of their own.
func streams(t testing.TB, p *boundary.Prepared) (read *os.File) {
	t.Helper()
	for i, to := range []**os.File{&p.Stdio.Out, &p.Stdio.Err} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		*to = w
		if i == 0 {
			read = r
		}
	}
	return read
}
