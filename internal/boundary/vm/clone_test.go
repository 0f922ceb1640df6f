package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/boundary/vm/vmtest"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/qemu"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestClockFaults: whatever the time was in a machine that was saved, a workload in
// a clone sees the host's from its first instruction on.
func TestClockFaults(t *testing.T) {
	slow(t)
	f := newFixture(t)
	f.written = true
	for _, when := range []string{"past", "future"} {
		t.Run(when, func(t *testing.T) {
			f.machine.Initramfs = vmtest.Hostile(t, when).Initramfs
			guard(t)
			f.templates(t)
			s := program("clock")
			f.ensure(t, s, f.prepare(t, s))
			if c := f.run(t, s, nil); !near(c.out, time.Now()) || len(c.notices) > 0 {
				t.Errorf("a clone's clock says %q; noticed %q", c.out, c.notices)
			}
		})
	}
}

// key is that of the template for a workload's machine.
func (f *fixture) key(t *testing.T, s workload.Spec) string {
	t.Helper()
	p, _ := explainNICs(s, f.prepare(t, s))
	z, err := sizeOf(s, qemu.Accel(p.Machine.Accel), false)
	if err != nil {
		t.Fatal(err)
	}
	g, err := generic(config(s, p, p.Dir, z))
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := qemu.Fingerprint(g)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestSilentCloneFaults: a clone that never answers is cut off, the machine boots,
// and the template goes; but where others go on from it, it is the host that has
// not enough for all.
func TestSilentCloneFaults(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	f.written = true
	store := f.templates(t)
	s := program("exit", "7")
	// The template is one of another machine, whose agent has greeted and is deaf
	// from then on.
	deaf := *f
	deaf.machine.Initramfs = vmtest.Hostile(t, "deaf").Initramfs
	deaf.ensure(t, s, deaf.prepare(t, s))
	was, key := onlyKey(t, store), f.key(t, s)
	dir := filepath.Join(f.machine.Templates, key)
	if err := os.Rename(filepath.Join(f.machine.Templates, was), dir); err != nil {
		t.Fatal(err)
	}
	about := filepath.Join(dir, "about.json")
	b, err := os.ReadFile(about)
	if err != nil {
		t.Fatal(err)
	}
	if err := replace(about, bytes.ReplaceAll(b, []byte(was), []byte(key))); err != nil {
		t.Fatal(err)
	}
	other, err := store.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	f.patience = time.Minute
	in, err := Boundary{BootTimeout: f.patience}.Create(t.Context(), s, f.prepare(t, s))
	if err == nil {
		in.Delete(t.Context())
	}
	wantFault(t, err, qemu.Host, "does not answer in time")
	if got := onlyKey(t, store); got != key {
		t.Errorf("another template: %s", got)
	}
	other.Close()
	c := f.run(t, s, nil)
	if c.exit.Code != 7 || len(c.notices) != 1 || !strings.Contains(c.notices[0], "the machine boots") || !strings.Contains(c.notices[0], "does not answer") {
		t.Errorf("exit %+v, noticed %q", c.exit, c.notices)
	}
	if all, err := store.List(); err != nil || len(all) != 0 {
		t.Errorf("it is still there: %+v, %v", all, err)
	}
}

// TestManyCloneFaults starts more clones at once than there is memory for. Those
// that the host ends say so; nothing boots in their place, which takes more; the
// others, those that have memory elsewhere, and the template stay.
func TestManyCloneFaults(t *testing.T) {
	slow(t)
	guard(t)
	f := newFixture(t)
	f.written = true
	store := f.templates(t)
	memory := int64(16 * mib)
	small := func(args ...string) workload.Spec {
		s := program(args...)
		s.Resources.Memory = &memory
		return s
	}
	s := small("pause")
	f.ensure(t, s, f.prepare(t, s))
	key := onlyKey(t, store)
	f.neighbour(t)

	const count = 12
	limit := int64(300 * mib)
	tight, err := cgroup.New(testCgroup+"/tight", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}, cgroup.Options{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := tight.Create(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tight.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	instances := make([]boundary.Instance, count)
	var all sync.WaitGroup
	for i := range instances {
		s := small("pause")
		p := f.prepare(t, s)
		r, err := f.pool.Allocate(string(s.ID), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		p.IDBase, p.IDCount, p.Cgroup = r.Base, r.Count, testCgroup+"/tight/"+string(s.ID)
		p.Notice = func(line string) { t.Errorf("clone %d: noticed %q", i, line) }
		all.Go(func() {
			in, err := Boundary{}.Create(ctx, s, p)
			if err != nil {
				wantStarved(t, err)
				return
			}
			if err := in.Start(ctx); err != nil {
				wantStarved(t, err)
			}
			instances[i] = in
		})
	}
	all.Wait()
	alive, ended := 0, 0
	for _, in := range instances {
		if in == nil {
			continue
		}
		p, err := in.Exec(ctx, workload.Process{Args: []string{"/bin/program", "exit", "3"}, Cwd: "/", User: "0:0"}, boundary.Stdio{})
		var exit workload.Exit
		if err == nil {
			exit, err = p.Wait(ctx)
		}
		if err == nil && exit.Code == 3 {
			alive++
			continue
		}
		ended++
		if exit, err = in.Wait(ctx); err == nil {
			t.Errorf("a clone ended by itself: %+v", exit)
			continue
		}
		wantStarved(t, err)
	}
	t.Logf("%d clones live, %d were ended later, %d did not start", alive, ended, count-alive-ended)
	if alive == 0 || alive == count {
		t.Errorf("%d of %d live, which is no test", alive, count)
	}
	for _, in := range instances {
		if in != nil {
			if err := in.Delete(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
	if got := onlyKey(t, store); got != key {
		t.Errorf("another template: %s", got)
	}
	if c := f.run(t, small("exit", "7"), nil); c.exit.Code != 7 || len(c.notices) > 0 {
		t.Errorf("with memory again: %+v", c)
	}
}

// wantStarved checks that an error says that the host had no memory.
func wantStarved(t *testing.T, err error) {
	t.Helper()
	var f *qemu.Fault
	if !errors.As(err, &f) || f.Who != qemu.Host || !strings.Contains(f.Text, "memory") {
		t.Errorf("not for want of memory: %v", err)
	}
}
