package vm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/template"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// warm makes a machine that waits for s, whose template it makes if need be. It
// returns what it was made with.
func (f *fixture) warm(t testing.TB, s workload.Spec) (boundary.Warm, boundary.Prepared) {
	t.Helper()
	s.ID = workload.NewID() // nobody's
	p := f.prepare(t, s)
	making := p
	making.Dir, making.Cgroup = "", testCgroup
	key, err := Boundary{}.ImageTemplate(t.Context(), s, making, Progress{})
	if err != nil || key == "" {
		t.Fatalf("key %q, %v", key, err)
	}
	w, err := Boundary{}.Warm(t.Context(), s, p, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Discard(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return w, p
}

// in gives a workload what it has with a machine that waits.
func in(with boundary.Prepared) func(*boundary.Prepared) {
	return func(p *boundary.Prepared) { p.Cgroup, p.IDBase, p.IDCount = with.Cgroup, with.IDBase, with.IDCount }
}

// TestWarm: what starts in machines that have waited is in nothing another's, and
// has what it wrote when it is started again.
func TestWarm(t *testing.T) {
	guard(t)
	f := newFixture(t)
	store := f.templates(t)
	seen := map[string]bool{}
	for _, x := range []struct{ host, what, want string }{
		{"first", "hostname", "first\n"}, {"second", "env", "OWNER=second\nHOME=/\n"}, {"third", "head /dev/urandom 36", ""}, {"fourth", "head /dev/urandom 36", ""},
	} {
		w, with := f.warm(t, ofImage("nobody"))
		s := ofImage(x.host, strings.Fields(x.what)...)
		c := f.runBehind(t, w.Boundary(), s, func(p *boundary.Prepared) {
			in(with)(p)
			t.Cleanup(func() {
				if blank(p.Machine) {
					t.Errorf("%s: its disk is the one that it had", x.host)
				}
			})
		})
		if c.exit.Code != 0 || x.want != "" && c.out != x.want || seen[c.out] || len(c.notices) > 0 {
			t.Errorf("%s: %+v", x.host, c)
		}
		seen[c.out] = true
		if _, err := cgroup.Load(with.Cgroup, cgroup.Options{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("its cgroup is there: %v", err)
		}
	}
	w, with := f.warm(t, ofImage("nobody"))
	if c := f.runBehind(t, w.Boundary(), ofImage("fifth", "clock"), in(with)); !near(c.out, time.Now()) || len(c.notices) > 0 {
		t.Errorf("the clock: %+v", c)
	}
	if err := os.Remove(filepath.Join(f.machine.Templates, onlyKey(t, store), "seen")); err != nil {
		t.Fatal(err)
	}
	o, err := store.Open(onlyKey(t, store)) // compares the digests
	if err != nil {
		t.Fatal(err)
	}
	o.Close()
}

// cpuWeight is what the host's kernel keeps of a cgroup's weight.
func cpuWeight(t *testing.T, path string) string {
	t.Helper()
	m, err := cgroup.Load(path, cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(m.Paths()[""], "cpu.weight")
	if dir, ok := m.Paths()["cpu"]; ok {
		file = filepath.Join(dir, "cpu.shares")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// TestWarmWeight: a workload that takes a machine has its own share of the host's
// processors, also where it asks for none.
func TestWarmWeight(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	f.templates(t)
	plain, _ := f.warm(t, ofImage("nobody"))
	usual := cpuWeight(t, plain.(*warm).r.cgroup.Path())
	s := ofImage("nobody")
	s.Resources.CPUWeight = 7
	for _, own := range []uint64{0, 512} {
		w, with := f.warm(t, s)
		mine := ofImage("box")
		mine.Resources.CPUWeight = own
		p := f.prepare(t, mine)
		in(with)(&p)
		streams(t, &p)
		i, err := w.Boundary().Create(t.Context(), mine, p)
		if err != nil {
			t.Fatal(err)
		}
		if got := cpuWeight(t, p.Cgroup); (got == usual) != (own == 0) {
			t.Errorf("asked for a weight of %d, it has %s; one that nobody asked for is %s", own, got, usual)
		}
		if err := i.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestRehearsal: where it is emulated, a machine that waits has rehearsed a start,
// and nothing is left of that.
func TestRehearsal(t *testing.T) {
	guard(t)
	f := newFixture(t)
	f.templates(t)
	made, _ := f.warm(t, ofImage("nobody"))
	m := made.(*warm).machine
	if _, err := m.processors.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	status := func() protocol.Status {
		t.Helper()
		st, err := clientOf(m).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	only := func(st protocol.Status) bool {
		return len(st.Workloads) == 1 && st.Workloads[0] == protocol.Workload{ID: protocol.Nobody, Status: workload.Created}
	}
	if st := status(); !only(st) {
		t.Errorf("in the guest: %+v", st.Workloads)
	}
	s := ofImage("nobody")
	if err := m.rehearse(t.Context(), s, f.prepare(t, s)); err != nil {
		t.Errorf("again: %v", err) // what the first had left would be in its way
	}
	if st := status(); !only(st) {
		t.Errorf("after another: %+v", st.Workloads)
	}
	if err := made.Discard(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestWarmKept: a workload that is not to be removed has what it wrote when it is
// started again.
func TestWarmKept(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	f.templates(t)
	s := ofImage("kept", "write", "/written", "precious")
	s.AutoRemove = false
	w, with := f.warm(t, s)
	var p boundary.Prepared
	if c := f.runBehind(t, w.Boundary(), s, func(mine *boundary.Prepared) { in(with)(mine); p = *mine }); c.exit.Code != 0 || len(c.notices) > 0 {
		t.Fatalf("%+v", c)
	}
	s.Process.Args = []string{"/bin/program", "head", "/written", "8"}
	c := f.runBehind(t, w.Boundary(), s, func(mine *boundary.Prepared) {
		in(with)(mine)
		mine.Machine.Data, mine.Machine.Blank = p.Machine.Data, p.Machine.Blank
	})
	if c.out != "707265636f757300\n" && !strings.HasPrefix(c.out, "7072656369") {
		t.Errorf("what was written is gone: %+v", c)
	}
}

// TestWarmFaults: a machine that has ended, or waits for something else, is no
// obstacle, and what its holder leaves is found and removed.
func TestWarmFaults(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	f.templates(t)
	gone := func(what string, p boundary.Prepared) {
		t.Helper()
		if _, err := cgroup.Load(p.Cgroup, cgroup.Options{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: its cgroup is there: %v", what, err)
		}
		if names, err := os.ReadDir(p.Dir); err != nil || len(names) > 0 {
			t.Errorf("%s: its directory has %v, %v", what, names, err)
		}
	}
	kill := func(w boundary.Warm) {
		t.Helper()
		if err := syscall.Kill(w.(*warm).machine.vmm.Pid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-w.Done()
	}
	t.Run("discarded", func(t *testing.T) {
		w, p := f.warm(t, ofImage("nobody"))
		if err := w.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone("discarded", p)
	})
	t.Run("found", func(t *testing.T) {
		w, p := f.warm(t, ofImage("nobody"))
		found, err := Boundary{}.Open(t.Context(), workload.NewID(), p.Dir)
		if err == nil {
			err = found.Delete(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		<-w.Done()
		gone("found", p)
	})
	t.Run("ended", func(t *testing.T) {
		w, with := f.warm(t, ofImage("nobody"))
		kill(w)
		c := f.runBehind(t, w.Boundary(), ofImage("box", "exit", "7"), in(with))
		if c.exit.Code != 7 || len(c.notices) != 1 || !strings.Contains(c.notices[0], "waited for it") {
			t.Errorf("%+v", c)
		}
		gone("ended", with)
	})
	t.Run("of others", func(t *testing.T) {
		w, with := f.warm(t, ofImage("nobody"))
		s := ofImage("box", "exit", "7")
		s.ReadOnlyRoot = true
		c := f.runBehind(t, w.Boundary(), s, in(with))
		if c.exit.Code != 7 || len(c.notices) == 0 || !strings.Contains(c.notices[0], "for other workloads") {
			t.Errorf("%+v", c)
		}
		gone("of others", with)
	})
	t.Run("wrong program", func(t *testing.T) {
		w, with := f.warm(t, ofImage("nobody"))
		s := ofImage("box")
		s.Process.Args = []string{"/no/such/program"}
		p := f.prepare(t, s)
		in(with)(&p)
		streams(t, &p)
		if _, err := w.Boundary().Create(t.Context(), s, p); !errors.Is(err, workload.ErrCommandNotFound) {
			t.Errorf("got %v", err)
		}
		if !blank(p.Machine) {
			t.Error("its disk is not the one that it had")
		}
		gone("wrong program", with)
	})
	t.Run("outdated", func(t *testing.T) {
		w, p := f.warm(t, ofImage("nobody"))
		key := w.(*warm).key
		now := time.Now().Add(time.Second)
		if err := os.Chtimes(f.image, now, now); err != nil {
			t.Fatal(err)
		}
		q := f.prepare(t, ofImage("nobody"))
		if _, err := (Boundary{}).Warm(t.Context(), ofImage("nobody"), q, key); err == nil || !strings.Contains(err.Error(), "outdated") {
			t.Errorf("got %v", err)
		}
		gone("outdated", q)
		if _, err := (Boundary{}).Warm(t.Context(), ofImage("nobody"), q, strings.Repeat("0", 64)); !errors.Is(err, template.ErrNotFound) {
			t.Errorf("no template: got %v", err)
		}
		if err := w.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone("outdated", p)
	})
}
