package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/template"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// templates lets the fixture's machines go on from templates, which it makes as
// they are needed.
func (f *fixture) templates(t testing.TB) *template.Store {
	t.Helper()
	f.machine.Templates = t.TempDir()
	return template.New(f.machine.Templates)
}

// ensure makes the template of a workload.
func (f *fixture) ensure(t testing.TB, s workload.Spec, p boundary.Prepared) {
	t.Helper()
	p.Dir, p.Cgroup = "", testCgroup
	if err := (Boundary{}).Template(t.Context(), s, p, Progress{Failed: func(err error) { t.Error(err) }}); err != nil {
		t.Fatal(err)
	}
}

// ensureImage makes the template of a workload's image, and removes the generic
// one: a machine that does not go on from the first boots, and says so.
func (f *fixture) ensureImage(t testing.TB, s workload.Spec, p boundary.Prepared) {
	t.Helper()
	for range often {
		f.ensure(t, s, p)
	}
	store := template.New(f.machine.Templates)
	all, err := store.List()
	if err != nil {
		t.Fatal(err)
	}
	images := 0
	for _, e := range all {
		if e.DiskDigest != "" {
			images++
		} else if err := store.Remove(e.Key, true); err != nil {
			t.Fatal(err)
		}
	}
	if images == 0 {
		t.Fatalf("after %d starts there is no template of the image", often)
	}
}

// cloned is a workload that ran to its end, and what was noticed.
type cloned struct {
	out     string
	notices []string
	exit    workload.Exit
}

// run runs a workload to its end, in a clone unless the notices say otherwise.
func (f *fixture) run(t *testing.T, s workload.Spec, change func(*boundary.Prepared)) (c cloned) {
	t.Helper()
	return f.runBehind(t, Boundary{BootTimeout: f.patience}, s, change)
}

func (f *fixture) runBehind(t *testing.T, behind boundary.Boundary, s workload.Spec, change func(*boundary.Prepared)) (c cloned) {
	t.Helper()
	p := f.prepare(t, s)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var mu sync.Mutex
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p.Stdio = boundary.Stdio{Out: w, Err: null}
	p.Notice = func(line string) {
		mu.Lock()
		defer mu.Unlock()
		c.notices = append(c.notices, line)
	}
	if change != nil {
		change(&p)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	in, err := behind.Create(ctx, s, p)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := in.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if err := in.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if c.exit, err = in.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	c.out = string(b)
	return c
}

// TestClones: two machines that go on from one template have nothing in common
// that should be their own, and leave the template as it is.
func TestClones(t *testing.T) {
	guard(t)
	f := newFixture(t)
	store := f.templates(t)
	s := program("exit", "0")
	f.ensure(t, s, f.prepare(t, s))
	all, err := store.List()
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	seen := map[string]string{}
	for _, file := range []string{"/dev/urandom", "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/random/uuid"} {
		for range 2 {
			c := f.run(t, program("head", file, "36"), nil)
			if len(c.notices) > 0 || c.exit.Code != 0 {
				t.Errorf("%s: exit %+v, noticed %q", file, c.exit, c.notices)
			}
			if was := seen[c.out]; len(c.out) < 36 || was != "" {
				t.Errorf("%s gave %q, as %q did", file, c.out, was)
			}
			seen[c.out] = file
		}
	}
	// The wall clock is the host's, whatever the template's age.
	if c := f.run(t, program("clock"), nil); !near(c.out, time.Now()) {
		t.Errorf("a clone's clock says %q", c.out)
	}
	after, err := store.Get(all[0].Key)
	if err != nil || after.Err != nil || after.InUse {
		t.Errorf("the template: %+v, %v", after, err)
	}
	if err := os.Remove(filepath.Join(f.machine.Templates, all[0].Key, "seen")); err != nil {
		t.Fatal(err)
	}
	o, err := store.Open(all[0].Key) // compares the digests
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
}

// near tells whether text is a time, in seconds since 1970, around now.
func near(text string, now time.Time) bool {
	sec, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return err == nil && now.Sub(time.Unix(sec, 0)).Abs() < time.Minute
}

// TestTemplateFaults: without a template that is whole, the machine boots, and
// says why; clones that run are not touched.
func TestTemplateFaults(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	f.written = true
	store := f.templates(t)
	s := program("pause")
	f.ensure(t, s, f.prepare(t, s))
	key := onlyKey(t, store)
	dir := filepath.Join(f.machine.Templates, key)
	running := f.create(t, Boundary{}, s)
	if err := running.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	alive := func(what string) {
		t.Helper()
		p, err := running.Exec(t.Context(), workload.Process{Args: []string{"/bin/program", "exit", "3"}, Cwd: "/", User: "0:0"}, boundary.Stdio{})
		if err != nil {
			t.Fatalf("%s: the clone that ran: %v", what, err)
		}
		if exit, err := p.Wait(t.Context()); err != nil || exit.Code != 3 {
			t.Errorf("%s: the clone that ran: %+v, %v", what, exit, err)
		}
	}
	for _, fault := range []struct {
		name   string
		damage func() error
	}{
		{"removed", func() error { return store.Remove(key, true) }},
		{"another state", func() error { return replace(filepath.Join(dir, "state"), []byte("no state")) }},
		{"flipped bit", func() error { return flip(filepath.Join(dir, "memory")) }},
		{"another version's", func() error { return replace(filepath.Join(dir, "about.json"), []byte(`{"format":99}`)) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			f.ensure(t, s, f.prepare(t, s))
			if got := onlyKey(t, store); got != key {
				t.Fatalf("another key: %s", got)
			}
			if err := fault.damage(); err != nil {
				t.Fatal(err)
			}
			c := f.run(t, program("exit", "7"), nil)
			if c.exit.Code != 7 || len(c.notices) != 1 || !strings.Contains(c.notices[0], "the machine boots") {
				t.Errorf("exit %+v, noticed %q", c.exit, c.notices)
			}
			if left, err := store.List(); err != nil || len(left) != 0 {
				t.Errorf("it is still there: %+v, %v", left, err)
			}
			if fault.name != "flipped bit" { // of the file that it goes on from
				alive(fault.name)
			}
		})
	}
	f.ensure(t, s, f.prepare(t, s))
	if c := f.run(t, program("exit", "7"), nil); c.exit.Code != 7 || len(c.notices) > 0 {
		t.Errorf("a new template: %+v", c)
	}
}

// TestSaveFaults: a machine that cannot be saved, and runs, is nobody's fault, so that
// the workload's boots.
func TestSaveFaults(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	f.templates(t)
	s := program("exit", "0")
	p := f.prepare(t, s)
	p.Dir, p.Cgroup = "", testCgroup
	k, err := Boundary{}.maker(s, p)
	if err != nil {
		t.Fatal(err)
	}
	ram, err := os.Create(filepath.Join(t.TempDir(), "ram"))
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	state, err := os.Open(os.DevNull) // which cannot be written to
	if err == nil {
		err = ram.Truncate(k.generic.Memory)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	_, err = k.save(t.Context(), k.generic, k.key, &template.Files{RAM: ram, State: state}, nil)
	var to *qemu.Fault
	if err == nil || errors.As(err, &to) || !strings.Contains(err.Error(), "save the machine: QEMU: ") {
		t.Errorf("got %v", err)
	}
}

// TestDiscard: a template from which a clone does not come goes, unless others go on
// from it; then the host is to blame for a clone that is late, and for no other.
func TestDiscard(t *testing.T) {
	of := func(who qemu.Party, panics bool, cause error) error {
		return errors.Join(&fault{qemu.Fault{Who: who, Panic: panics}, cause}, nil)
	}
	lost := fmt.Errorf("ask: %w", client.ErrGuestLost)
	for name, tt := range map[string]struct {
		err  error
		goes bool       // where nobody goes on from it
		who  qemu.Party // is to blame where others do
	}{
		"late":                {of(qemu.Agent, false, context.DeadlineExceeded), true, qemu.Host},
		"silent":              {of(qemu.Kernel, false, errSilent), true, qemu.Host},
		"panics, and is late": {of(qemu.Kernel, true, context.DeadlineExceeded), true, qemu.Kernel},
		"panics":              {of(qemu.Agent, true, lost), true, qemu.Agent},
		"speaks nonsense":     {of(qemu.Agent, false, protocol.ErrProtocol), true, qemu.Agent},
		"QEMU ends":           {of(qemu.VMM, false, lost), true, qemu.VMM},
		"QEMU is late":        {of(qemu.VMM, false, context.DeadlineExceeded), true, qemu.VMM},
		"no memory":           {of(qemu.Host, false, lost), false, qemu.Host},
	} {
		t.Run(name, func(t *testing.T) {
			s, key := template.New(t.TempDir()), strings.Repeat("ab", 32)
			err := s.Ensure(t.Context(), template.Recipe{Key: key, Memory: mib, Save: func(context.Context, *template.Files) (protocol.Hello, error) { return protocol.Hello{}, nil }})
			if err != nil {
				t.Fatal(err)
			}
			other, err := s.Open(key)
			if err != nil {
				t.Fatal(err)
			}
			there := func(want bool) {
				t.Helper()
				if _, err := s.Get(key); (err == nil) != want {
					t.Errorf("it is there: %v; want %v", err == nil, want)
				}
			}
			got := discard(s, key, tt.err)
			var f *qemu.Fault
			if !errors.As(got, &f) || f.Who != tt.who {
				t.Errorf("in use: %v is to blame; want %s", got, tt.who)
			}
			there(true)
			other.Close()
			if got := discard(s, key, tt.err); !errors.Is(got, tt.err) {
				t.Errorf("got %v", got)
			}
			there(!tt.goes)
		})
	}
}

func onlyKey(t *testing.T, s *template.Store) string {
	t.Helper()
	all, err := s.List()
	if err != nil || len(all) != 1 {
		t.Fatalf("templates %+v, %v", all, err)
	}
	return all[0].Key
}

// replace puts another file in the place of one.
func replace(name string, b []byte) error {
	return errors.Join(os.WriteFile(name+".new", b, 0o400), os.Rename(name+".new", name))
}

// flip changes one bit of what is in a file.
func flip(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	const at = 64 * mib
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	return err
}

// TestMakerKilled: what a command leaves that is killed while it makes a
// template, the next one removes.
func TestMakerKilled(t *testing.T) {
	guard(t)
	dir, key := t.TempDir(), strings.Repeat("ab", 32)
	making := filepath.Join(dir, "making-"+key)
	if err := os.Mkdir(making, 0o700); err != nil {
		t.Fatal(err)
	}
	pids := int64(10)
	cg, err := cgroup.New(templateCgroup(testCgroup, dir, key), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}, cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cg.Create(); err != nil {
		t.Fatal(err)
	}
	if _, err := Templates(dir, testCgroup).Prune(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(making); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was unfinished: %v", err)
	}
}

// TestTemplateOnFullDisk: no half of a template stays, and who is to blame is
// said.
func TestTemplateOnFullDisk(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	f.machine.Templates = t.TempDir()
	if err := syscall.Mount("tmpfs", f.machine.Templates, "tmpfs", 0, "size=48m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(f.machine.Templates, 0); err != nil {
			t.Error(err)
		}
	}()
	s := program("exit", "7")
	p := f.prepare(t, s)
	p.Dir, p.Cgroup = "", testCgroup
	err := Boundary{}.Template(t.Context(), s, p, Progress{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a template on a full disk: %v", err)
	}
	left, err := filepath.Glob(f.machine.Templates + "/*")
	for _, name := range left {
		if !strings.HasSuffix(name, ".lock") && filepath.Base(name) != "asked" { // what images are run, before there is a template
			t.Errorf("left: %s, %v", name, err)
		}
	}
	if c := f.run(t, s, nil); c.exit.Code != 7 || len(c.notices) != 1 {
		t.Errorf("without a template: %+v", c)
	}
}
