package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

func TestUpdate(t *testing.T) {
	w := newWorld(t)
	s := spec("wait-signal", "TERM")
	s.Name = "u"
	memory := int64(100 << 20)
	s.Resources.Memory = &memory
	if _, err := w.Create(ctx(t), s); err != nil {
		t.Fatal(err)
	}
	check := func(what string, memory, pids int64, restart string) {
		t.Helper()
		r, err := w.Inspect(ctx(t), "u")
		if err != nil {
			t.Fatal(err)
		}
		res := r.Spec.Resources
		if *res.Memory != memory || pids != 0 && *res.Pids != pids || r.Spec.Restart.Policy != restart {
			t.Errorf("%s: got %+v, %+v", what, res, r.Spec.Restart)
		}
		if r.Status != workload.Running {
			return
		}
		if u, err := w.Measure(ctx(t), "u"); err != nil || u.MemoryLimit != memory || u.PidsLimit != pids {
			t.Errorf("%s: in force: %+v, %v", what, u, err)
		}
	}
	pids, more, less := int64(50), int64(200<<20), int64(50<<20)
	if err := w.Update(ctx(t), "u", workload.Resources{Pids: &pids}, &workload.Restart{Policy: "always"}); err != nil {
		t.Fatal(err)
	}
	check("created", memory, 50, "always")
	if _, err := w.Start(ctx(t), "u", nil); err != nil {
		t.Fatal(err)
	}
	check("started", memory, 50, "always")
	if err := w.Update(ctx(t), "u", workload.Resources{Memory: &more}, nil); err != nil {
		t.Fatal(err)
	}
	check("while it runs", more, 50, "always")
	if err := w.Update(ctx(t), "u", workload.Resources{MemorySwap: &less}, nil); err == nil {
		t.Error("less swap than memory: no error")
	}
	all := int64(-1)
	if err := w.Update(ctx(t), "u", workload.Resources{Memory: &all, Pids: &all, CpusetCPUs: "1000"}, nil); err == nil || !strings.Contains(err.Error(), "1000") {
		t.Errorf("refused by the boundary: got %v", err)
	}
	check("after refusals", more, 50, "always")
	record := filepath.Join(w.layout.Dir(w.want("u", workload.Running).Spec.ID), "changes.json.next")
	if err := os.Mkdir(record, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.Update(ctx(t), "u", workload.Resources{Pids: &all}, nil); err == nil {
		t.Error("not recorded: no error")
	}
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	check("not recorded", more, 50, "always")
	if err := w.Update(ctx(t), "u", workload.Resources{}, &workload.Restart{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(ctx(t), "u", nil); err != nil {
		t.Fatal(err)
	}
	check("stopped", more, 50, "")
}

// TestUpdateAutoRemove gives what is removed at its end a restart policy, before it runs
// and while it does.
func TestUpdateAutoRemove(t *testing.T) {
	w := newWorld(t)
	s := spec("wait-signal", "TERM")
	s.Name, s.AutoRemove = "u", true
	if _, err := w.Create(ctx(t), s); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Update(ctx(t), "u", workload.Resources{}, &workload.Restart{Policy: "always"}); err == nil || !strings.Contains(err.Error(), "removed at its end") {
			t.Errorf("got %v", err)
		}
		if err := w.Update(ctx(t), "u", workload.Resources{}, &workload.Restart{}); err != nil {
			t.Error(err)
		}
		if _, err := w.Start(ctx(t), "u", nil); err != nil && !errors.Is(err, workload.ErrRunning) {
			t.Fatal(err)
		}
	}
	if err := w.Stop(ctx(t), "u", nil); err != nil {
		t.Error(err)
	}
	w.wantEmpty()
}

// TestUpdateRestartPolicy gives a workload that comes back again and again the
// policy not to.
func TestUpdateRestartPolicy(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Run(ctx(t), restarted("always", 0, "exit", "4"), nil); err != nil {
		t.Fatal(err)
	}
	w.await("r", func(r *Record) bool { return r.Restarts >= 2 })
	if err := w.Update(ctx(t), "r", workload.Resources{}, &workload.Restart{}); err != nil {
		t.Fatal(err)
	}
	if r := w.await("r", func(r *Record) bool { return r.Status == workload.Exited }); r.Stopped || r.Exit.Code != 4 {
		t.Errorf("got %+v", r)
	}
}

// TestChangeBesideRestart changes limits and name of a workload whose next life is
// just being made: they are that life's.
func TestChangeBesideRestart(t *testing.T) {
	t.Setenv(envHang, "create")
	w := newWorld(t)
	if _, err := w.Run(ctx(t), restarted("always", 0, "wait-signal", "USR1"), nil); err != nil {
		t.Fatal(err)
	}
	pids, name := int64(50), "r"
	for what, change := range map[string]func() error{
		"update": func() error { return w.Update(ctx(t), name, workload.Resources{Pids: &pids}, nil) },
		"rename": func() error { return w.Rename(ctx(t), "r", "renamed") },
	} {
		restarts := w.want(name, workload.Running).Restarts
		hold := filepath.Join(w.dir, "world", "hold")
		if err := os.WriteFile(hold, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.Kill(ctx(t), name, syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		w.awaitFile("creating")
		changed := make(chan error, 1)
		go func() { changed <- change() }()
		select {
		case err := <-changed:
			t.Errorf("%s: it is over before the life has begun: %v", what, err)
			changed <- err
		case <-time.After(100 * time.Millisecond):
		}
		if err := os.Remove(hold); err != nil {
			t.Fatal(err)
		}
		if err := <-changed; err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if what == "rename" {
			name = "renamed"
		}
		w.await(name, func(r *Record) bool { return r.Status == workload.Running && r.Restarts > restarts })
		if what == "rename" {
			continue
		}
		if u, err := w.Measure(ctx(t), name); err != nil || u.PidsLimit != pids {
			t.Errorf("%s: in force: %+v, %v", what, u, err)
		}
	}
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"one", "two"} {
		s := spec("wait-signal", "TERM")
		s.Name = name
		if _, err := w.Create(ctx(t), s); err != nil {
			t.Fatal(err)
		}
	}
	id := w.want("one", workload.Created).Spec.ID
	if err := w.Rename(ctx(t), "one", "two"); !errors.Is(err, workload.ErrNameTaken) {
		t.Errorf("taken: got %v", err)
	}
	if err := w.Rename(ctx(t), "one", "one"); !errors.Is(err, workload.ErrNameTaken) {
		t.Errorf("its own: got %v", err)
	}
	if err := w.Rename(ctx(t), "one", "../x"); err == nil {
		t.Error("no name: no error")
	}
	if err := w.Rename(ctx(t), "one", "three"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Start(ctx(t), "three", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Rename(ctx(t), "three", "four"); err != nil {
		t.Fatal(err)
	}
	if r := w.want("four", workload.Running); r.Spec.ID != id {
		t.Errorf("got %s", r.Spec.ID)
	}
	for _, old := range []string{"one", "three"} {
		if _, err := w.Inspect(ctx(t), old); !errors.Is(err, workload.ErrNotFound) {
			t.Errorf("%s: got %v", old, err)
		}
	}
	// An old name is free, and the end removes the new one.
	s := spec("exit", "0")
	s.Name = "three"
	if _, err := w.Create(ctx(t), s); err != nil {
		t.Error(err)
	}
	if err := w.Remove(ctx(t), "four", true); err != nil {
		t.Error(err)
	}
}

// TestRenameAutoRemove renames what removes itself.
func TestRenameAutoRemove(t *testing.T) {
	w := newWorld(t)
	s := spec("wait-signal", "TERM")
	s.Name, s.AutoRemove = "one", true
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Rename(ctx(t), "one", "two"); err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(ctx(t), "two", nil); err != nil {
		t.Fatal(err)
	}
	w.wantEmpty()
}

func TestRestartCommand(t *testing.T) {
	w := newWorld(t)
	s := spec("wait-signal", "INT")
	s.Name = "r"
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	before := w.want("r", workload.Running)
	never := -time.Second
	if err := w.Restart(ctx(t), "r", &never, 2); err != nil {
		t.Fatal(err)
	}
	after := w.want("r", workload.Running)
	if !after.Started.After(before.Started) || after.SupervisorPID == before.SupervisorPID {
		t.Errorf("got %+v", after)
	}
	if ps, err := w.Describe(ctx(t), "r"); err != nil || len(ps) != 1 || ps[0].PID != 1 {
		t.Errorf("got %+v, %v", ps, err)
	}
	if err := w.Stop(ctx(t), "r", new(time.Duration)); err != nil {
		t.Fatal(err)
	}
	for _, ask := range []func() error{
		func() error { return second(w.Measure(ctx(t), "r")) }, func() error { return second(w.Describe(ctx(t), "r")) },
	} {
		if err := ask(); !errors.Is(err, workload.ErrNotRunning) {
			t.Errorf("stopped: got %v", err)
		}
	}
}

// TestRestartAutoRemove restarts a workload that is removed at its end: it stays
// the same one, is removed by the next stop, and by a start that fails.
func TestRestartAutoRemove(t *testing.T) {
	w := newWorld(t)
	s := restarted("", 0, "wait-signal", "TERM")
	s.AutoRemove = true
	session, err := w.Run(ctx(t), s, &Streams{})
	if err != nil {
		t.Fatal(err)
	}
	before := session.Record
	if err := w.Restart(ctx(t), "r", nil, 0); err != nil {
		t.Fatal(err)
	}
	if exit, err := session.Wait(ctx(t)); err != nil || exit.Code != 7 {
		t.Errorf("who was attached: got %+v, %v, want the end of the first run", exit, err)
	}
	r := w.want("r", workload.Running)
	if r.Spec.ID != before.Spec.ID || r.SupervisorPID != before.SupervisorPID || !r.Started.After(before.Started) || r.Restarts != 0 || len(r.Ends) != 0 || r.Stopped {
		t.Errorf("got %+v, before %+v", r, before)
	}
	if err := w.Restart(ctx(t), "r", nil, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.want("r", workload.Running)
	if err := w.Stop(ctx(t), "r", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Restart(ctx(t), "r", nil, 0); !errors.Is(err, workload.ErrNotFound) {
		t.Errorf("after its end: got %v", err)
	}
	w.wantEmpty()
}

// TestRestartAtOnce restarts a workload by several commands at a time: each finds it
// running again, and none ends it for good.
func TestRestartAtOnce(t *testing.T) {
	for _, remove := range []bool{false, true} {
		w := newWorld(t)
		s := restarted("", 0, "wait-signal", "TERM")
		s.AutoRemove = remove
		if _, err := w.Run(ctx(t), s, nil); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			var all sync.WaitGroup
			for range 6 {
				all.Go(func() {
					if err := w.Restart(ctx(t), "r", nil, 0); err != nil {
						t.Errorf("removed at its end: %t: %v", remove, err)
					}
				})
			}
			all.Wait()
			w.want("r", workload.Running)
		}
		if err := w.Remove(ctx(t), "r", true); err != nil {
			t.Error(err)
		}
		w.wantEmpty()
	}
}

// TestRestartAutoRemoveFails takes away what the next run needs.
func TestRestartAutoRemoveFails(t *testing.T) {
	if os.Getenv(envReal) != "" {
		t.Skip("it breaks the fake's world")
	}
	w := newWorld(t)
	s := restarted("", 0, "wait-signal", "TERM")
	s.AutoRemove = true
	if _, err := w.Run(ctx(t), s, nil); err != nil {
		t.Fatal(err)
	}
	world := filepath.Join(w.dir, "world")
	if err := os.Rename(world, world+".away"); err != nil {
		t.Fatal(err)
	}
	if err := w.Restart(ctx(t), "r", nil, 0); err == nil || !strings.Contains(err.Error(), "create fake instance") {
		t.Errorf("got %v", err)
	}
	// With it went what the first run had there.
	if err := errors.Join(os.RemoveAll(world+".away"), os.Mkdir(world, 0o700)); err != nil {
		t.Fatal(err)
	}
	w.wantEmpty()
}
